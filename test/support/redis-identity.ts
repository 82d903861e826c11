import { randomUUID } from "node:crypto";
import { onTestFinished } from "vitest";
import { createDocuments, type Documents } from "../../src/identity/redis/documents.ts";
import { openRedisUsers, type RedisUsersOptions } from "../../src/identity/redis/redis-users.ts";
import { openRedisIdentity, type RedisIdentityOptions } from "../../src/identity/redis/open-redis-identity.ts";
import { openRedisApiKeys } from "../../src/identity/redis/redis-api-keys.ts";
import { openRedisGroups } from "../../src/identity/redis/redis-groups.ts";
import { createRedisLoginGuard } from "../../src/identity/redis/redis-login-guard.ts";
import { openRedisSessions, type RedisSessionsOptions } from "../../src/identity/redis/redis-sessions.ts";
import type { Redis } from "../../src/lib/redis/redis.ts";
import { systemClock, type Clock } from "../../src/lib/clock.ts";
import { parseConfig } from "../../src/config/load.ts";
import { fakeHash } from "../identity/support.ts";
import { configGroups } from "../contracts/groups.ts";
import { createCapturedLog } from "./captured-log.ts";
import { rule } from "./login-guard.ts";

/** Marks all tags as seeded, as the first start does. */
export async function seed(redis: Redis): Promise<void> {
  for (const tag of redis.tags) {
    const key = redis.keyIn(tag, "logseq");
    await redis.send(key, ["HSETNX", key, "epoch", randomUUID()]);
  }
}

export function documentsOf(redis: Redis): Documents {
  return createDocuments(redis, { lastSeq: () => "0" });
}

/** Users over Redis with the tiers basic and premium. */
export function usersOver(redis: Redis, options: Partial<RedisUsersOptions> = {}) {
  const users = openRedisUsers({
    redis,
    documents: documentsOf(redis),
    clock: systemClock,
    log: createCapturedLog(),
    tierNames: () => ["basic", "premium"],
    hashPassword: (password) => Promise.resolve(fakeHash(password)),
    ...options,
  });
  onTestFinished(() => users.close());
  return users;
}

/** API keys over Redis. */
export function keysOver(redis: Redis, clock: Clock = systemClock) {
  const keys = openRedisApiKeys({
    redis,
    documents: documentsOf(redis),
    clock,
    log: createCapturedLog(),
    newId: randomUUID,
  });
  onTestFinished(() => keys.close());
  return keys;
}

/** Sessions over Redis: 30 days at most, 7 days idle, 10 s leeway, 50 of a user. */
export function sessionsOver(
  redis: Redis,
  options: Pick<RedisSessionsOptions, "findAccount"> & Partial<RedisSessionsOptions>,
) {
  const sessions = openRedisSessions({
    redis,
    documents: documentsOf(redis),
    clock: systemClock,
    log: createCapturedLog(),
    newId: randomUUID,
    emit: () => undefined,
    forgetAccount: () => undefined,
    figures: {
      sessionSeconds: 30 * 86_400,
      idleSeconds: 7 * 86_400,
      cookieSeconds: 2 * 86_400,
      leewaySeconds: 10,
      maxSessions: 50,
    },
    ...options,
  });
  onTestFinished(() => sessions.close());
  return sessions;
}

/** Groups over Redis, with those of configGroups. */
export function groupsOver(redis: Redis) {
  const { groups } = parseConfig(configGroups, "test.toml");
  const monotonic = (): number => performance.now();
  const opened = openRedisGroups({ redis, documents: documentsOf(redis), groups, log: createCapturedLog(), monotonic });
  onTestFinished(() => opened.close());
  return opened;
}

/** A login guard over Redis with five free failures. */
export function guardOver(
  redis: Redis,
  clock: Clock,
  options: Partial<Parameters<typeof createRedisLoginGuard>[0]> = {},
) {
  const figures = { rule, maxTracked: 1000, knownAddressMs: 86_400_000, isShared: () => false };
  const now = (): number => clock.now();
  return createRedisLoginGuard({ redis, figures, clock, now, emit: () => undefined, ...options });
}

/** A process over the shared Redis, with the config's defaults. */
export async function nodeOver(redis: Redis, options: Partial<RedisIdentityOptions> = {}) {
  const { auth, panel, security } = parseConfig("", "test.toml");
  const node = await openRedisIdentity({
    redis,
    lastSeq: () => "0",
    groups: {},
    auth: () => auth,
    panel: () => panel,
    security: () => security,
    tierNames: () => ["basic", "premium"],
    hashPassword: (password) => Promise.resolve(fakeHash(password)),
    clock: systemClock,
    log: createCapturedLog(),
    emit: () => undefined,
    newId: randomUUID,
    ...options,
  });
  onTestFinished(() => node.close());
  return node;
}

/** A connection to which no change is reported. */
export function deaf(redis: Redis): Redis {
  return { ...redis, onChange: () => undefined };
}

/** A connection on which every answer is lost once: each call runs twice. */
export function repeating(redis: Redis): Redis {
  return {
    ...redis,
    async call(name, keys, args) {
      await redis.call(name, keys, args);
      return redis.call(name, keys, args);
    },
  };
}
