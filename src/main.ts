import { parseArgs } from "node:util";
import { createFirstAdmin } from "./accounts/files/first-admin.ts";
import { thisProcessTable } from "./cli/this-process.ts";
import { ConfigError, loadConfig } from "./config/load.ts";
import { createLogger } from "./events/logger.ts";
import { buildServer } from "./server.ts";
import { createServices, type Services } from "./services.ts";
import { version } from "./version.ts";

const usage = `deepseek-proxy ${version}

  npm start                            start with ./config.toml
  node dist/main.js --config FILE      start with another config
  node dist/main.js --check            check the config and stop

Environment: DEEPSEEK_API_KEY, ZHIPU_API_KEY, OPENAI_API_KEY, JWT_SECRETS or JWT_SECRETS_FILE, CONFIG_FILE, HOST, PORT.
`;

/** How long closing may take once the streams have ended, in ms. */
const closeMs = 60_000;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      config: { type: "string" },
      check: { type: "boolean" },
      help: { type: "boolean", short: "h" },
      version: { type: "boolean" },
    },
  });
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
    print(`${loaded.file ?? "the built-in config"} is fine\n`);
    return;
  }

  const log = createLogger({ level: loaded.config.logs.level });
  // The journal is written through: whatever was acknowledged is safe, and what is broken must not go on.
  const die = (message: string, err?: unknown): void => {
    log.error({ event: "crash", err }, message);
    log.flush();
    process.exit(70);
  };
  process.on("uncaughtException", (err) => {
    die("an error that nobody caught; the process ends", err);
  });
  // Without a handler it would end the process, also where nothing can be read again yet.
  let reread = (): void => undefined;
  process.on("SIGHUP", () => {
    log.info({ event: "reload" }, "SIGHUP: reading the files of keys again; config.toml needs a restart");
    reread();
  });
  const services = await createServices({
    loaded,
    env: process.env,
    log,
    processes: thisProcessTable(),
    onLockLost: () => {
      die("another instance has taken the users folder; this one ends without touching it");
    },
    processMetrics: true,
  });
  reread = () => {
    services.rereadKeys();
  };
  const server = await buildServer(services);
  await greet(services);
  const url = await server.listen();
  log.info({ event: "listening", url, version, config: loaded.file, pid: process.pid }, "listening");

  let stopping = false;
  const stop = (signal: NodeJS.Signals): void => {
    if (stopping) process.exit(130);
    stopping = true;
    void shutdown(signal);
  };
  const shutdown = async (signal: NodeJS.Signals): Promise<void> => {
    const seconds = loaded.config.server.shutdown_seconds;
    log.info({ event: "stopping", signal, shutdown_seconds: seconds }, "stopping: no new requests, streams may end");
    setTimeout(
      () => {
        log.error({ event: "stuck" }, "closing took too long; the process ends");
        log.flush();
        process.exit(1);
      },
      seconds * 1000 + closeMs,
    ).unref();
    let exitCode = 0;
    try {
      await server.stop(seconds * 1000);
      await services.close();
      log.info({ event: "stopped" }, "stopped");
    } catch (error) {
      exitCode = 1;
      const errors: unknown[] = error instanceof AggregateError ? error.errors : [error];
      for (const err of errors) log.error({ event: "stopped", err }, "not everything could be closed");
    }
    log.flush();
    process.exit(exitCode);
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
}

/** Says, once, what a newcomer needs: the first password, and that a simulator answers. */
async function greet(services: Services): Promise<void> {
  const admin = await createFirstAdmin(services.accounts, Object.keys(services.config.quota.tiers));
  if (admin !== undefined) {
    print(`\n  First start: made the user "${admin.username}" with the password ${admin.password}\n`);
    print(`  It is shown only now. Change it with: npm run user -- passwd ${admin.username}\n\n`);
  }
  if (services.simulated) {
    print("\n  NO PROVIDER HAS AN API KEY: answers come from the built-in SIMULATOR, not from a language model.\n");
    print("  Set DEEPSEEK_API_KEY and start again to get real ones.\n\n");
    services.log.warn({ event: "simulator" }, "no provider has an API key: the built-in simulator answers");
  }
}

function print(text: string): void {
  process.stdout.write(text);
}

main().catch((error: unknown) => {
  // What an operator can mend is said in a line; a stack is for what only a developer can.
  const known = error instanceof ConfigError || (error instanceof Error && error.name !== "TypeError");
  process.stderr.write(
    `deepseek-proxy cannot start:\n${known ? error.message : String(error instanceof Error ? error.stack : error)}\n`,
  );
  process.exitCode = 1;
});
