import { access, constants, mkdtemp, open, rm, stat, statfs } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { Agent, request } from "undici";
import { loadConfig, type LoadedConfig } from "../config/load.ts";
import { findProviderKeys } from "../config/provider-keys.ts";
import type { ProviderConfig } from "../config/schema.ts";
import { loadTokenKeys, readOwnTokenKeys } from "../identity/sessions/token-keys.ts";
import { systemClock as clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import { scrubSecrets } from "../lib/secret-text.ts";
import { connectState } from "../open-redis-state.ts";
import { createConnector } from "../providers/forward-proxy.ts";
import { providerKinds } from "../providers/kinds/kinds.ts";
import { failureReason } from "../providers/read-text.ts";
import { parseCommandLine, runCommand, UsageError } from "./command-line.ts";
import { checkEventSinks, type DoctorCall, type Finding, messageOf, timeoutMs } from "./doctor-events.ts";
import { checkOidc } from "./doctor-oidc.ts";
import { silent, type CommandIo } from "./this-process.ts";

const usage = `Usage: npm run doctor [-- --config FILE]

Checks what a server needs: the config, keys, providers (their list of models, which costs nothing), identity providers,
disks, the clock, Redis and Kafka. Each failure comes with its fix. Changes nothing; it may run beside a server. Exit code 1: something fails.`;

const options = { config: { type: "string" }, help: { type: "boolean", short: "h" } } as const;

/** Free bytes below which a disk is worth a word, and too full. */
const lowBytes = 1 << 30;
const fullBytes = 100 << 20;
/** ms of one sync above which charges wait noticeably. */
const slowSyncMs = 50;
/** ms between our clock and a provider's; its header has whole seconds. */
const skewMs = 5000;

/**
 * Runs `npm run doctor`.
 *
 * @returns the exit code: 0 nothing fails, 1 something does, 2 wrong usage
 */
export function runDoctorCli(argv: readonly string[], io: CommandIo): Promise<number> {
  return runCommand(io, usage, async () => {
    const { values, positionals } = parseCommandLine(argv, options);
    if (values.help === true) {
      io.out(usage);
      return 0;
    }
    if (positionals.length > 0) throw new UsageError("doctor takes no arguments");
    let failures = 0;
    const secrets = secretsIn(io.env);
    const show = ({ level, what, found, fix }: Finding): void => {
      if (level === "FAIL") failures++;
      io.out(hide(`${level.padEnd(5)} ${what}: ${found}`, secrets));
      if (fix !== undefined) io.out(hide(`      fix: ${fix}`, secrets));
    };
    const loaded = readConfig(values.config, io, show);
    if (loaded !== null) {
      const call = { loaded, env: io.env };
      for (const check of [checkSigning, checkProviders, checkDisks, checkOidc, checkRedis, checkEventSinks])
        for (const finding of await check(call)) show(finding);
    }
    io.out(failures === 0 ? "nothing fails" : `${failures} ${failures === 1 ? "check fails" : "checks fail"}`);
    return failures === 0 ? 0 : 1;
  });
}

function readConfig(path: string | undefined, io: CommandIo, show: (finding: Finding) => void): LoadedConfig | null {
  try {
    const loaded = loadConfig(path, io.env, io.cwd);
    show({ level: "ok", what: "config", found: loaded.file ?? "no config.toml: the defaults apply" });
    return loaded;
  } catch (error) {
    const fix = "correct the lines named; docs/configuration.md has all keys";
    show({ level: "FAIL", what: "config", found: messageOf(error), fix });
    return null;
  }
}

async function checkSigning({ loaded, env }: DoctorCall): Promise<readonly Finding[]> {
  const what = "JWT_SECRETS";
  const isSet = [env.JWT_SECRETS, env.JWT_SECRETS_FILE].some((value) => value !== undefined && value !== "");
  const usersDir = resolve(loaded.folder, loaded.config.storage.users_dir);
  if (!isSet) {
    try {
      await readOwnTokenKeys(usersDir);
      return [{ level: "ok", what, found: "not set: a secret is made once, in users/.keys/jwt" }];
    } catch (error) {
      const fix = "restore that file from a backup, or remove it: then a secret is made, and everybody logs in again";
      return [{ level: "FAIL", what, found: messageOf(error), fix }];
    }
  }
  try {
    const { byKid } = await loadTokenKeys({ env, usersDir, log: silent });
    return [{ level: "ok", what, found: `${byKid.size} to verify with, the first signs` }];
  } catch (error) {
    const fix = "JWT_SECRETS=k1:$(openssl rand -hex 32), or a file of that form in JWT_SECRETS_FILE";
    return [{ level: "FAIL", what, found: messageOf(error), fix }];
  }
}

async function checkProviders({ loaded, env }: DoctorCall): Promise<readonly Finding[]> {
  const providers = loaded.config.providers.filter(({ enabled }) => enabled);
  if (providers.length === 0) {
    const fix = "add [[providers]] to config.toml";
    return [{ level: "warn", what: "providers", found: "none: the built-in simulator answers", fix }];
  }
  const findings = await Promise.all(
    providers.map(async (provider) => {
      const what = `provider ${provider.name}`;
      const kind = providerKinds[provider.kind];
      try {
        const keys = findProviderKeys(provider, kind, env, loaded.folder);
        if (keys.length === 0) {
          const name = [provider.api_keys_env ?? provider.api_key_env ?? kind.defaultKeyEnv ?? ""].flat().join(" or ");
          return [{ level: "keyless", what, fix: `set the environment variable ${name}` } as const];
        }
        if (provider.kind === "simulator") return [{ level: "ok", what, found: "built in" } as const];
        return (await Promise.all(keys.map((key, at) => checkAccount(provider, key, `${what}, key ${at}`)))).flat();
      } catch (error) {
        return [{ level: "FAIL", what, found: messageOf(error), fix: "correct its key or its file" } as const];
      }
    }),
  );
  const all = findings.flat();
  // As at the start: where none has a key, the simulator is what somebody who tries the proxy wants.
  const isSimulated = all.every(({ level }) => level === "keyless");
  return all.map((finding): Finding => {
    if (finding.level !== "keyless") return finding;
    if (isSimulated) return { ...finding, level: "warn", found: "it has no key: the built-in simulator responds" };
    return { ...finding, level: "FAIL", found: "it has no key, and is left out" };
  });
}

/** Asks for the list of models: it needs the key, and costs nothing. Its Date header is a clock to compare with ours. */
async function checkAccount(provider: ProviderConfig, key: string, what: string): Promise<readonly Finding[]> {
  const kind = providerKinds[provider.kind];
  const base = new URL(provider.base_url ?? kind.defaultBaseUrl);
  const path = base.pathname.endsWith("/") ? base.pathname.slice(0, -1) : base.pathname;
  const dispatcher = new Agent({ connect: createConnector(timeoutMs, provider.forward_proxy_url) });
  try {
    const { statusCode, headers, body } = await request(base.origin + kind.modelsPath(path) + base.search, {
      dispatcher,
      headers: { ...(key === "" ? {} : kind.authorization(key)), accept: "application/json" },
      signal: AbortSignal.timeout(timeoutMs),
    });
    await body.dump();
    return [accountFinding(what, statusCode, base.host), ...clockFindings(headers.date, base.host)];
  } catch (error) {
    const found = `${base.host} can't be reached: ${failureReason(error, timeoutMs)}`;
    const settings = provider.forward_proxy_url === undefined ? "base_url" : "base_url, forward_proxy_url";
    return [{ level: "FAIL", what, found, fix: `check ${settings}, DNS and the firewall of this machine` }];
  } finally {
    await dispatcher.destroy();
  }
}

function accountFinding(what: string, status: number, host: string): Finding {
  if (status === 401 || status === 403) {
    return { level: "FAIL", what, found: `${host} refuses the key (${status})`, fix: "set a valid key" };
  }
  const fix = "look at the provider's status page; the proxy retries, and uses other providers meanwhile";
  if (status >= 500) return { level: "FAIL", what, found: `${host} fails (${status})`, fix };
  // Some have no list of models.
  return { level: "ok", what, found: `${host} answers (${status})` };
}

function clockFindings(date: string | string[] | undefined, host: string): readonly Finding[] {
  const theirs = Date.parse(String(date));
  if (Number.isNaN(theirs)) return [];
  const apart = Math.abs(clock.now() - theirs);
  if (apart <= skewMs) return [{ level: "ok", what: "clock", found: `as at ${host}` }];
  const found = `${Math.round(apart / 1000)} s apart from that of ${host}`;
  return [
    { level: "FAIL", what: "clock", found, fix: "run NTP (timedatectl set-ntp true): quotas are reset by this clock" },
  ];
}

async function checkDisks({ loaded: { config, folder } }: DoctorCall): Promise<readonly Finding[]> {
  const folders = [config.storage.users_dir, config.storage.logs_dir].map((name) => resolve(folder, name));
  return (await Promise.all(folders.map(checkDisk))).flat();
}

async function checkDisk(folder: string): Promise<readonly Finding[]> {
  const what = `disk of ${folder}`;
  try {
    // A server makes the folder; until then its parent tells.
    const there = await nearestFolder(folder);
    await access(there, constants.W_OK | constants.X_OK);
    const { bavail, bsize } = await statfs(there);
    const free = bavail * bsize;
    const shown = `${Math.floor(free / (1 << 20))} MiB free`;
    if (free < fullBytes)
      return [{ level: "FAIL", what, found: shown, fix: "free some space: charges can't be recorded on a full disk" }];
    const syncMs = await syncTime(there);
    const found = `${shown}, a sync takes ${syncMs.toFixed(1)} ms`;
    if (free < lowBytes) return [{ level: "warn", what, found, fix: "free some space, or shorten logs.keep_days" }];
    if (syncMs <= slowSyncMs) return [{ level: "ok", what, found }];
    return [
      { level: "warn", what, found, fix: 'use a faster disk; with durability = "strict" each chat waits for one' },
    ];
  } catch (error) {
    const fix = `let this user write there: chown -R USER ${folder}`;
    return [{ level: "FAIL", what, found: messageOf(error), fix }];
  }
}

async function nearestFolder(folder: string): Promise<string> {
  const found = await stat(folder).catch(() => null);
  if (found === null && dirname(folder) !== folder) return nearestFolder(dirname(folder));
  if (found?.isDirectory() !== true) throw new Error(`${folder} is no folder`);
  return folder;
}

/** The median of a few, in ms. */
async function syncTime(folder: string): Promise<number> {
  const own = await mkdtemp(join(folder, ".doctor-"));
  try {
    const file = await open(join(own, "probe"), "w", 0o600);
    const times: number[] = [];
    try {
      for (let i = 0; i < 5; i++) {
        await file.write("x".repeat(4096));
        const from = clock.monotonic();
        await file.sync();
        times.push(clock.monotonic() - from);
      }
    } finally {
      await file.close();
    }
    return times.sort((a, b) => a - b)[2] ?? 0;
  } finally {
    await rm(own, { recursive: true, force: true });
  }
}

async function checkRedis({ loaded: { config }, env }: DoctorCall): Promise<readonly Finding[]> {
  const what = "Redis";
  if (config.state.backend !== "redis") return [];
  const warnings: string[] = [];
  const log: Log = { ...silent, warn: (_facts: object, message: string) => void warnings.push(message) };
  try {
    const redis = await connectState({ env, config, clock, log });
    await redis.close();
    const fix = "see docs/many-nodes.md for its settings";
    return [
      { level: "ok", what, found: "it answers, and its settings will do" },
      ...warnings.map((found) => ({ level: "warn", what, found, fix }) as const),
    ];
  } catch (error) {
    const fix = "check REDIS_URL, and the settings that docs/many-nodes.md asks for";
    return [{ level: "FAIL", what, found: messageOf(error), fix }];
  }
}

/** The values of variables whose names look like secrets. No message may show them, not even one from a library. */
function secretsIn(env: CommandIo["env"]): readonly string[] {
  return Object.entries(env).flatMap(([name, value = ""]) =>
    /KEY|SECRET|TOKEN|PASSWORD/i.test(name)
      ? value
          .split(",")
          .map((part) => part.trim())
          .filter((part) => part.length >= 6)
      : [],
  );
}

function hide(text: string, secrets: readonly string[]): string {
  return scrubSecrets(secrets.reduce((shown, secret) => shown.replaceAll(secret, "[redacted]"), text));
}
