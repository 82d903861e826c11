import { createHash } from "node:crypto";
import { mkdtemp, mkdir, rm, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { loadConfig, parseConfig, type LoadedConfig } from "../../src/config/load.ts";
import { createLogger } from "../../src/events/logger.ts";
import type { Clock } from "../../src/lib/clock.ts";
import { createProcessTable } from "../../src/lib/files/lock-owner.ts";
import { TestRunner } from "vitest";
import { delayedBackends } from "./backends.ts";
import { oncePerPassword } from "./once-per-password.ts";
import { buildServer, type Server } from "../../src/server.ts";
import { createServices, type Services, type ServicesOptions } from "../../src/services.ts";

export interface ProxyOptions {
  /** TOML beside what every test needs; may not repeat [server], [storage] or [logs]. */
  readonly config?: string;
  /** Where the provider "upstream" is; absent: the embedded simulator answers. */
  readonly upstreamUrl?: string;
  /** Which API the provider "upstream" speaks; default deepseek. */
  readonly kind?: "deepseek" | "zhipu" | "openai" | "simulator";
  readonly env?: Readonly<Record<string, string>>;
  readonly clock?: Clock;
  /** users/NAME.toml by name; default: one user "alice". */
  readonly users?: Readonly<Record<string, string>>;
  /** Goes on in this folder instead of a new one. */
  readonly folder?: string;
  /** Keys of [server]. */
  readonly server?: string;
  /** Whether the config is a file that is watched: `config.toml` in the folder. Default: it exists in memory only. */
  readonly configFile?: boolean;
  /** As createServices takes it. */
  readonly backends?: ServicesOptions["backends"];
  /** The state is in this Redis, below this prefix; `state`: further keys of [state]. */
  readonly redis?: { readonly url: string; readonly keyPrefix: string; readonly state?: string };
  /** As createServices takes it; default: argon2id, run once for each password. */
  readonly hasher?: ServicesOptions["hasher"];
  /** As createServices takes it; default: no load, whatever the machine that runs the tests does. */
  readonly readLoad?: ServicesOptions["readLoad"];
}

export interface RunningProxy {
  readonly url: string;
  readonly folder: string;
  readonly services: Services;
  readonly server: Server;
  /** Everything that the proxy has logged. */
  readonly logLines: readonly string[];
  /** The text of a config file: what every test needs, then `config`. */
  configText(config: string): string;
  /** Logs in and returns the token. */
  login(username?: string, password?: string): Promise<string>;
  /** Stops as SIGTERM does; the folder stays. */
  stop(drainMs?: number): Promise<void>;
  /** Stops and removes the folder. */
  dispose(): Promise<void>;
}

/** With E2E_BACKENDS=delayed every test runs over backends that answer 3 ms late, as those behind a network do. */
const backendsOfRun = process.env.E2E_BACKENDS === "delayed" ? delayedBackends : undefined;

/** With E2E_BACKENDS=redis every test has its state in one Redis, below a prefix of its folder's own. */
const redisOfRun = process.env.E2E_BACKENDS === "redis" ? process.env.E2E_REDIS_URL : undefined;

/** For tests of the files themselves: over Redis, the users folder is only a copy. */
export function skipOverRedis(reason: string): void {
  if (redisOfRun !== undefined) TestRunner.getCurrentTest()?.context.skip(`${reason}, but the state is in Redis`);
}

function redisFor(folder: string): ProxyOptions["redis"] {
  if (redisOfRun === undefined) return undefined;
  return { url: redisOfRun, keyPrefix: `t${createHash("sha256").update(folder).digest("hex").slice(0, 16)}` };
}

export const alicePassword = "correct horse battery";

/** Of that password, as the proxy would write it: hashing it takes a third of the CPU of a start. */
const aliceHash = "$argon2id$v=19$m=19456,t=2,p=1$RmGQ7SaI7AygQk8KKNV5Jw$2ppPlnWcY1aq+N+6nhhz1aiMypU2W7mUtlfBMRHQU/w";

/** The key that the proxy sends upstream in tests; it must never be seen anywhere else. */
export const upstreamKey = "sk-upstream-sentinel-5c1f0a9e";

/** Starts a whole proxy on a free port in a temporary folder. */
export async function startProxy(options: ProxyOptions = {}): Promise<RunningProxy> {
  if (redisOfRun !== undefined && options.clock !== undefined)
    TestRunner.getCurrentTest()?.context.skip("sets its own clock, but Redis's decides");
  const folder = options.folder ?? (await mkdtemp(join(tmpdir(), "proxy-")));
  const usersDir = join(folder, "users");
  await mkdir(usersDir, { recursive: true });
  const users = options.users ?? { alice: userFile("alice", alicePassword) };
  if (options.folder === undefined) {
    for (const [name, text] of Object.entries(users)) await writeFile(join(usersDir, `${name}.toml`), text);
  }
  const provider =
    options.upstreamUrl === undefined
      ? ""
      : `[[providers]]\nname = "upstream"\nkind = "${options.kind ?? "deepseek"}"\napi_key_env = "DEEPSEEK_API_KEY"\nbase_url = "${options.upstreamUrl}"\nmodels = ["*"]\n`;
  const redis = options.redis ?? redisFor(folder);
  const state =
    redis === undefined
      ? ""
      : `[state]\nbackend = "redis"\nkey_prefix = "${redis.keyPrefix}"\nrestore_wait_ms = 200\n${redis.state ?? ""}`;
  const configText = (config: string): string =>
    `[server]\nport = 0\n${options.server ?? ""}\n[logs]\nflush_ms = 10\n${state}${provider}\n${config}\n`;
  const text = configText(options.config ?? "");
  const path = join(folder, "config.toml");
  if (options.configFile === true) await writeFile(path, text);
  const loaded: LoadedConfig =
    options.configFile === true
      ? loadConfig(path, {}, folder)
      : { config: parseConfig(text, "test.toml"), file: null, folder };
  const backends = options.backends ?? backendsOfRun;
  const logLines: string[] = [];
  const log = createLogger({ level: "debug", destination: { write: (line) => logLines.push(line) } });
  const services = await createServices({
    loaded,
    env: {
      DEEPSEEK_API_KEY: options.upstreamUrl === undefined ? "" : upstreamKey,
      ...(redis === undefined ? {} : { REDIS_URL: redis.url }),
      ...options.env,
    },
    log,
    processes: createProcessTable({ pid: process.pid, host: hostname(), exists: () => true }),
    onLockLost: () => {
      throw new Error("the lock was lost");
    },
    readLoad: options.readLoad ?? (() => ({ loopDelayMs: 0, heapShare: 0, descriptorShare: 0 })),
    ...(options.clock === undefined ? {} : { clock: options.clock }),
    hasher: options.hasher ?? oncePerPassword,
    ...(backends === undefined ? {} : { backends }),
  });
  const server = await buildServer(services);
  const url = await server.listen();
  let stopped: Promise<void> | undefined;
  const stop = (drainMs = 0): Promise<void> => (stopped ??= server.stop(drainMs).then(() => services.close()));
  return {
    url,
    folder,
    services,
    server,
    logLines,
    configText,
    async login(username = "alice", password = alicePassword) {
      const answer = await post(`${url}/auth/login`, { username, password });
      const body = (await answer.json()) as { token?: string };
      if (body.token === undefined) throw new Error(`login failed: ${JSON.stringify(body)}`);
      return body.token;
    },
    stop,
    async dispose() {
      await stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** The text of a user file with a plaintext password. */
export function userFile(username: string, password: string, rest = ""): string {
  const secret =
    password === alicePassword ? `password_hash = "${aliceHash}"\ntoken_version = 1` : `password = "${password}"`;
  return `username = "${username}"\n${secret}\nquota_tier = "basic"\n${rest}`;
}

/** Posts JSON. */
export function post(url: string, body: unknown, headers: Readonly<Record<string, string>> = {}): Promise<Response> {
  return fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
}

/** The header that carries a token. */
export function bearer(token: string): { readonly authorization: string } {
  return { authorization: `Bearer ${token}` };
}
