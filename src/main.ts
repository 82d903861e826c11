import { constants, fstatSync, openSync, writeSync } from "node:fs";
import { resolve } from "node:path";
import { parseCommandLine, UsageError } from "./cli/command-line.ts";
import { oidcSecretProblems } from "./cli/doctor-oidc.ts";
import { checkUserFiles } from "./identity/files/check-user-files.ts";
import { createFirstAdmin } from "./identity/first-admin.ts";
import { thisProcessTable } from "./cli/this-process.ts";
import { ConfigError, loadConfig } from "./config/load.ts";
import { createLogOutput } from "./events/log-output.ts";
import { createLogger, type Logger } from "./events/logger.ts";
import type { LockLoss } from "./lib/files/lock-file.ts";
import { buildServer, type Server } from "./server.ts";
import { createServices, type Services, type ServicesOptions } from "./services.ts";
import { version } from "./version.ts";

const usage = `deepseek-proxy ${version}

  npm start                            start with ./config.toml
  node dist/main.js --config FILE      start with another config
  node dist/main.js --check            check the config, secrets of [[oidc]] and the user files, and stop

Environment: DEEPSEEK_API_KEY, ZHIPU_API_KEY, OPENAI_API_KEY, JWT_SECRETS or JWT_SECRETS_FILE, CONFIG_FILE, HOST, PORT.
`;

/** How long closing may take once the streams have ended, in ms. */
const closeMs = 60_000;

/** A started proxy. */
interface Running {
  readonly services: Services;
  readonly server: Server;
}

async function main(): Promise<void> {
  const { values, positionals } = parseCommandLine(process.argv.slice(2), {
    config: { type: "string" },
    check: { type: "boolean" },
    help: { type: "boolean", short: "h" },
    version: { type: "boolean" },
  });
  const [argument] = positionals;
  if (argument !== undefined) throw new UsageError(`there is no argument ${JSON.stringify(argument)}`);
  if (values.help === true) {
    print(usage);
    return;
  }
  if (values.version === true) {
    print(`${version}\n`);
    return;
  }
  const loaded = loadConfig(values.config, process.env, process.cwd());
  if (values.check === true) {
    const usersDir = resolve(loaded.folder, loaded.config.storage.users_dir);
    const problems = [
      ...(await checkUserFiles(usersDir, Object.keys(loaded.config.quota.tiers))),
      ...oidcSecretProblems({ loaded, env: process.env }),
    ];
    if (problems.length > 0) {
      // The proxy would start, and serve all other users.
      process.stderr.write(`${problems.join("\n")}\n`);
      process.exitCode = 1;
      return;
    }
    print(`${loaded.file ?? "the built-in config"} is fine\n`);
    return;
  }

  const stdout = openStdout();
  const destination = createLogOutput({ write: (bytes) => writeSync(stdout, bytes) });
  const log = createLogger({ level: loaded.config.logs.level, destination });
  const end = (code: number): never => {
    log.flush();
    process.exit(code);
  };
  // The journal is written through: everything acknowledged is safe, and a broken process must not continue.
  const die = (facts: object, message: string): never => {
    log.error({ event: "crash", ...facts }, message);
    return end(70);
  };
  process.on("uncaughtException", (err) => {
    die({ err }, "uncaught exception, exiting");
  });

  // From here on signals are handled, even during the start.
  const state: { running?: Running; stopSignal?: NodeJS.Signals } = {};
  const starting = new AbortController();
  const stop = (signal: NodeJS.Signals): void => {
    if (state.stopSignal !== undefined) end(130);
    state.stopSignal = signal;
    if (state.running === undefined) starting.abort();
    else void shutDown(state.running, signal, log).then(end);
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  process.on("SIGHUP", () => {
    log.info({ event: "reload" }, "SIGHUP: rereading config.toml and the key files");
    void state.running?.services.reload("SIGHUP");
  });

  try {
    state.running = await start({
      loaded,
      env: process.env,
      log,
      processes: thisProcessTable(),
      onLockLost: (loss) => {
        die({ loss, folder: loaded.config.storage.users_dir }, lossMessages[loss]);
      },
      signal: starting.signal,
      processMetrics: true,
    });
  } catch (error) {
    if (!starting.signal.aborted) {
      log.flush();
      throw error;
    }
    log.info({ event: "stopped", signal: state.stopSignal }, "stopped before the start was over");
    end(0);
    return;
  }
  // The signal arrived during the last step of the start.
  if (state.stopSignal !== undefined) end(await shutDown(state.running, state.stopSignal, log));
}

const lossMessages: Readonly<Record<LockLoss, string>> = {
  taken: "another instance has taken the users folder; this one ends without touching it",
  removed: "the lock of the users folder was removed, so another instance may have used it; this one ends",
  moved: "the users folder is no longer where it was; the process ends",
};

/** Builds everything and listens. If that fails, closes everything, releases the lock and rejects. */
async function start(options: ServicesOptions): Promise<Running> {
  const { loaded, log, signal } = options;
  const services = await createServices(options);
  try {
    signal?.throwIfAborted();
    const server = await buildServer(services);
    await printWelcome(services);
    signal?.throwIfAborted();
    const url = await server.listen();
    log.info({ event: "listening", url, version, config: loaded.file, pid: process.pid }, "listening");
    return { services, server };
  } catch (error) {
    await services.close().catch((err: unknown) => {
      log.error({ err }, "not everything could be closed");
    });
    throw error;
  }
}

/** Lets streams finish and closes everything. Returns the exit code; never rejects. */
async function shutDown({ services, server }: Running, signal: NodeJS.Signals, log: Logger): Promise<number> {
  const { shutdown_delay_seconds: delay, shutdown_seconds: seconds } = services.policy().config.server;
  log.info(
    { event: "stopping", signal, shutdown_delay_seconds: delay, shutdown_seconds: seconds },
    delay > 0 ? "stopping soon: not ready any more" : "stopping: no new requests, streams may end",
  );
  setTimeout(
    () => {
      log.error({ event: "stuck" }, "closing took too long, exiting");
      log.flush();
      process.exit(1);
    },
    (delay + seconds) * 1000 + closeMs,
  ).unref();
  try {
    await server.stop(seconds * 1000, delay * 1000);
    await services.close();
    log.info({ event: "stopped" }, "stopped");
    return 0;
  } catch (error) {
    const errors: unknown[] = error instanceof AggregateError ? error.errors : [error];
    for (const err of errors) log.error({ event: "stopped", err }, "not everything could be closed");
    return 1;
  }
}

/** Prints once what a newcomer needs: the first password, and that a simulator responds. */
async function printWelcome(services: Services): Promise<void> {
  const admin = await createFirstAdmin(services.users, Object.keys(services.policy().config.quota.tiers));
  if (admin !== undefined) {
    print(`\n  First start: made the user "${admin.username}" with the password ${admin.password}\n`);
    print(
      `  It is shown only now. Change it in the panel (/panel/) or with: npm run user -- passwd ${admin.username} --password-stdin\n\n`,
    );
  }
  if (services.policy().simulated) {
    print("\n  NO PROVIDER HAS AN API KEY: answers come from the built-in SIMULATOR, not from a language model.\n");
    print("  Set DEEPSEEK_API_KEY and start again to get real ones.\n\n");
    services.log.warn({ event: "simulator" }, "no provider has an API key: the built-in simulator responds");
  }
}

/**
 * Returns a descriptor of standard output to which a write never blocks. Node makes pipes and sockets non-blocking when
 * its own stream is first accessed; a terminal, which Ctrl-S may stop, has to be opened again.
 */
function openStdout(): number {
  // If the reader of our output is gone, only lines are lost.
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);
  if (!fstatSync(1).isCharacterDevice()) return 1;
  try {
    return openSync("/proc/self/fd/1", constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch {
    return 1;
  }
}

function print(text: string): void {
  process.stdout.write(text);
}

main().catch((error: unknown) => {
  if (error instanceof UsageError) {
    process.stderr.write(`${usage}\nerror: ${error.message}\n`);
    process.exitCode = 2;
    return;
  }
  // A problem that the operator can fix gets one line; a stack is for problems that only a developer can fix.
  const known = error instanceof ConfigError || (error instanceof Error && error.name !== "TypeError");
  const reason = known ? error.message : String(error instanceof Error ? error.stack : error);
  process.stderr.write(`deepseek-proxy cannot start:\n${reason}\n`);
  process.exitCode = 1;
  // Open handles and unread output must not keep a failed process alive.
  setTimeout(() => process.exit(), 1000).unref();
});
