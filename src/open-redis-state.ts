import { randomBytes } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { ConfigError, type Env } from "./config/load.ts";
import type { Config } from "./config/schema.ts";
import type { Clock } from "./lib/clock.ts";
import { readPlainFile, writeFileAtomic } from "./lib/files/atomic-file.ts";
import { fileErrorCode } from "./lib/files/file-ops.ts";
import type { Log } from "./lib/log.ts";
import { describeTarget, parseRedisUrl, redisUrlForms, type RedisTarget } from "./lib/redis/redis-url.ts";
import { type Redis, replyText } from "./lib/redis/redis.ts";
import { createRedisLibrary } from "./redis-library.ts";

interface RedisStateOptions {
  readonly env: Env;
  readonly config: Pick<Config, "state" | "storage">;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * Connects to the Redis of REDIS_URL and checks its settings.
 *
 * @throws ConfigError that says what is wrong with the address or the settings; RedisUnavailableError, RedisReplyError
 */
export async function connectState({ env, config, clock, log }: RedisStateOptions): Promise<Redis> {
  const target = targetOf(env);
  const { state, storage } = config;
  // Only here: what needs Redis takes a sixth of the time in which a process without it starts.
  const { openRedis } = await import("./lib/redis/open-redis.ts");
  const { checkServer } = await import("./lib/redis/check-server.ts");
  const redis = await openRedis({
    target,
    library: createRedisLibrary(),
    keyPrefix: state.key_prefix,
    timeoutMs: state.timeout_ms,
    log,
    monotonic: () => clock.monotonic(),
  }).catch((error: unknown) => {
    const why = error instanceof Error ? error.message : String(error);
    throw new ConfigError(`REDIS_URL: Redis at ${describeTarget(target)} cannot be used: ${why}`, { cause: error });
  });
  try {
    const needs = { strict: storage.durability === "strict", minReplicas: state.min_replicas };
    const { errors, warnings } = await checkServer(redis, { ...needs, now: () => clock.now() });
    const about = `Redis at ${describeTarget(target)}`;
    for (const warning of warnings) log.warn({ event: "redis" }, `${about}: ${warning}`);
    if (errors.length > 0) throw new ConfigError(errors.map((error) => `${about}: ${error}`).join("\n"));
    return redis;
  } catch (error) {
    await redis.close();
    throw error;
  }
}

function targetOf(env: Env): RedisTarget {
  const url = env.REDIS_URL ?? "";
  if (url === "")
    throw new ConfigError(
      `environment REDIS_URL: expected ${redisUrlForms}, got nothing, but state.backend is "redis"`,
    );
  try {
    return parseRedisUrl(url);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    // The address itself is not shown: it may hold a password.
    throw new ConfigError(`environment REDIS_URL: ${cause.message}`, { cause });
  }
}

/** The tag of the secret. */
const secretTag = "00";

const secretKey = (redis: Redis): string => redis.keyIn(secretTag, "secret", "jwt");

const secretFile = (usersDir: string): string => join(usersDir, ".keys", "jwt");

async function ownSecret(usersDir: string): Promise<string | undefined> {
  return readPlainFile(secretFile(usersDir)).catch((error: unknown) => {
    if (fileErrorCode(error) === "ENOENT") return undefined;
    throw error;
  });
}

/**
 * Puts the shared secret back where Redis has lost it with a tag: a process that starts later would make another one,
 * and each would refuse the tokens of the others.
 */
export async function putBackTokenSecret(redis: Redis, usersDir: string, tag: string): Promise<void> {
  if (tag !== secretTag) return;
  const own = await ownSecret(usersDir);
  if (own !== undefined) await redis.send(secretKey(redis), ["SET", secretKey(redis), own, "NX"]);
}

/**
 * Lets all nodes sign tokens with the same secret where the environment names none: that of the first one, which is kept
 * in Redis as sessions are. Call it before the secret is loaded from its file.
 */
export async function shareTokenSecret(redis: Redis, usersDir: string, env: Env): Promise<void> {
  if ((env.JWT_SECRETS ?? "") !== "" || (env.JWT_SECRETS_FILE ?? "") !== "") return;
  const path = secretFile(usersDir);
  const own = await ownSecret(usersDir);
  const key = secretKey(redis);
  const offered = own ?? `auto-${randomBytes(4).toString("hex")}:${randomBytes(48).toString("base64")}\n`;
  await redis.send(key, ["SET", key, offered, "NX"]);
  const shared = replyText(await redis.send(key, ["GET", key]));
  if (shared === own) return;
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  await writeFileAtomic(path, shared, { mode: 0o600 });
}
