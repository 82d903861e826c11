import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { randomBytes, randomInt } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@redis/client";
import { afterAll, beforeAll, describe, expect, onTestFinished } from "vitest";
import type { FunctionLibrary } from "../../src/lib/redis/library.ts";
import { openRedis } from "../../src/lib/redis/open-redis.ts";
import { parseRedisUrl } from "../../src/lib/redis/redis-url.ts";
import type { Redis } from "../../src/lib/redis/redis.ts";
import { createRedisLibrary } from "../../src/redis-library.ts";
import { createCapturedLog } from "./captured-log.ts";
import { eventually } from "./eventually.ts";

/** The program of the server: Redis, or what REDIS_SERVER names, such as valkey-server. */
const program = process.env.REDIS_SERVER ?? "redis-server";
const isInstalled = spawnSync(program, ["--version"]).status === 0;

/** A Valkey of its own kind: that of scripts/fetch-valkey.sh. */
const valkey = join(import.meta.dirname, "../../node_modules/.cache/valkey/valkey-server");

/** As describe; skipped where scripts/fetch-valkey.sh has not been run, except in CI, where that is a failure. */
export const describeWithValkey = existsSync(valkey) || process.env.CI !== undefined ? describe : describe.skip;

/** As describe; skipped where there is no Redis, except in CI, where that is a failure. */
export const describeWithRedis = isInstalled || process.env.CI !== undefined ? describe : describe.skip;

/** A server of its own process. */
export interface RedisServer {
  readonly port: number;
  readonly url: string;
  /** Stops it as a crash does. Its data are kept where it has an append-only file. */
  kill(): Promise<void>;
  /** Starts it again on the same port, with the data that its folder has. */
  restart(): Promise<void>;
  /** Stops it in its tracks, as a machine that hangs. */
  pause(): void;
  resume(): void;
  close(): Promise<void>;
}

/** Starts a server on a free port of 127.0.0.1. By default nothing is written to disk. */
export function startRedisServer(args: readonly string[] = [], server = program): Promise<RedisServer> {
  const defaults = ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"];
  const argsOf = (port: number, folder: string): readonly string[] => [
    "--port",
    String(port),
    "--bind",
    "127.0.0.1",
    "--dir",
    folder,
    "--loglevel",
    "warning",
    ...defaults,
    ...args,
  ];
  return startProgram(argsOf, server);
}

/** @param argsOf its arguments: the same whenever it is started again */
async function startProgram(
  argsOf: (port: number, folder: string) => readonly string[],
  server = program,
): Promise<RedisServer> {
  const folder = mkdtempSync(join(tmpdir(), "redis-"));
  const port = await freePort();
  const args = argsOf(port, folder);
  let child = await start(server, port, args);
  async function kill(): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, "exit");
    child.kill("SIGKILL");
    await gone;
  }
  return {
    port,
    url: `redis://127.0.0.1:${port}`,
    kill,
    async restart() {
      await kill();
      child = await start(server, port, args);
    },
    pause: () => void child.kill("SIGSTOP"),
    resume: () => void child.kill("SIGCONT"),
    async close() {
      await kill();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function start(server: string, port: number, args: readonly string[]): Promise<ChildProcess> {
  const child = spawn(server, args, { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  const listen = (bytes: Buffer): void => {
    output = (output + bytes.toString()).slice(-2000);
  };
  child.stdout.on("data", listen);
  child.stderr.on("data", listen);
  process.once("exit", () => child.kill("SIGKILL"));
  const client = createClient({
    socket: { host: "127.0.0.1", port, reconnectStrategy: () => (child.exitCode === null ? 20 : false) },
  });
  client.on("error", () => undefined);
  try {
    await client.connect();
    // It listens before it has read its file.
    await eventually(async () => {
      await client.ping();
    });
  } catch (cause) {
    throw new Error(`${server} did not start: ${output}`, { cause });
  } finally {
    if (client.isOpen) client.destroy();
  }
  return child;
}

/** A cluster of three primaries, without replicas unless asked for. */
async function startRedisCluster({ replicas = 0 } = {}): Promise<{
  readonly url: string;
  readonly servers: readonly RedisServer[];
  close(): Promise<void>;
}> {
  const args = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "1000"];
  const servers = await Promise.all(Array.from({ length: 3 * (1 + replicas) }, () => startRedisServer(args)));
  const addresses = servers.map(({ port }) => `127.0.0.1:${port}`);
  const made = spawnSync("redis-cli", [
    "--cluster",
    "create",
    ...addresses,
    "--cluster-yes",
    "--cluster-replicas",
    String(replicas),
  ]);
  if (made.status !== 0)
    throw new Error(`the cluster was not made: ${made.stdout.toString()}${made.stderr.toString()}`);
  // It is made when all know all slots, and works a little later.
  await eventually(() => {
    for (const { port } of servers) {
      const { stdout } = spawnSync("redis-cli", ["-p", String(port), "CLUSTER", "INFO"], { encoding: "utf8" });
      expect(stdout).toContain("cluster_state:ok");
    }
  });
  return {
    url: `redis+cluster://${addresses.slice(0, 3).join(",")}`,
    servers,
    async close() {
      await Promise.all(servers.map((server) => server.close()));
    },
  };
}

/** A primary with a replica, and three sentinels that put the replica in its place within a second or two. */
export async function startRedisSentinel(args: readonly string[] = []): Promise<{
  readonly url: string;
  readonly primary: RedisServer;
  readonly replica: RedisServer;
  close(): Promise<void>;
}> {
  const primary = await startRedisServer(args);
  const replica = await startRedisServer([...args, "--replicaof", "127.0.0.1", String(primary.port)]);
  const sentinels = await Promise.all([0, 1, 2].map(() => startSentinel(primary.port)));
  const servers = [primary, replica, ...sentinels];
  await eventually(async () => {
    for (const sentinel of sentinels) expect(await knownTo(sentinel)).toEqual(["1", "2", "master"]);
  }, 20_000);
  return {
    url: `redis+sentinel://${sentinels.map(({ port }) => `127.0.0.1:${port}`).join(",")}/main`,
    primary,
    replica,
    async close() {
      await Promise.all(servers.map((server) => server.close()));
    },
  };
}

/** One sentinel of a group of which two must agree. */
function startSentinel(primaryPort: number): Promise<RedisServer> {
  return startProgram((port, folder) => {
    const file = join(folder, "sentinel.conf");
    const lines = [
      `port ${port}`,
      "bind 127.0.0.1",
      `dir ${folder}`,
      `sentinel monitor main 127.0.0.1 ${primaryPort} 2`,
      "sentinel down-after-milliseconds main 500",
      "sentinel failover-timeout main 2000",
    ];
    writeFileSync(file, `${lines.join("\n")}\n`);
    return [file, "--sentinel"];
  });
}

/** How many replicas and other sentinels a sentinel has found, and how the primary seems to it. */
async function knownTo({ port }: RedisServer): Promise<readonly string[]> {
  const client = await createClient({ RESP: 3, socket: { host: "127.0.0.1", port } }).connect();
  try {
    const facts = await client.sendCommand<Readonly<Record<string, unknown>>>(["SENTINEL", "MASTER", "main"]);
    return ["num-slaves", "num-other-sentinels", "flags"].map((name) => String(facts[name]));
  } finally {
    client.destroy();
  }
}

/** One server for all tests of a file. */
export function useRedis(args: readonly string[] = [], of = program) {
  let server: RedisServer | undefined;
  beforeAll(async () => {
    server = await startRedisServer(args, of);
  });
  afterAll(() => server?.close());
  const running = (): RedisServer => {
    if (server === undefined) throw new Error("the server is not started yet");
    return server;
  };
  return { server: running, open: (options: OpenOptions = {}) => openTestRedis({ url: running().url, ...options }) };
}

/** One Valkey for all tests of a file: with describeWithValkey. */
export function useValkey() {
  return useRedis([], valkey);
}

/** One cluster for all tests of a file. */
export function useRedisCluster() {
  let cluster: Awaited<ReturnType<typeof startRedisCluster>> | undefined;
  beforeAll(async () => {
    cluster = await startRedisCluster();
  });
  afterAll(() => cluster?.close());
  const url = (): string => {
    if (cluster === undefined) throw new Error("the cluster is not started yet");
    return cluster.url;
  };
  return { url, open: (options: OpenOptions = {}) => openTestRedis({ url: url(), ...options }) };
}

export interface OpenOptions {
  readonly url?: string;
  /** Default: one that nobody else has, so that the state is empty. */
  readonly keyPrefix?: string;
  readonly timeoutMs?: number;
  /** Default: the program's. */
  readonly library?: FunctionLibrary;
}

/** A connection with the whole library; closed at the end of the test. */
export async function openTestRedis({
  url = "",
  keyPrefix = newPrefix(),
  timeoutMs = 2000,
  library = createRedisLibrary(),
}: OpenOptions): Promise<Redis> {
  const redis = await openRedis({
    target: parseRedisUrl(url),
    library,
    keyPrefix,
    timeoutMs,
    log: createCapturedLog(),
    monotonic: () => performance.now(),
  });
  onTestFinished(() => redis.close());
  return redis;
}

/** A prefix of keys that nobody else has. */
export function newPrefix(): string {
  return `t${randomBytes(6).toString("hex")}`;
}

/**
 * Free now, and below those that the system gives to outgoing connections: one of these could take it while its server is
 * being restarted. The bus of a cluster is at the port 10,000 above.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(10_000, 22_000);
    if ((await isFree(port)) && (await isFree(port + 10_000))) return port;
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => {
      resolve(false);
    });
    server.listen(port, "127.0.0.1", () =>
      server.close(() => {
        resolve(true);
      }),
    );
  });
}
