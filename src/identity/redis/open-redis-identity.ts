import type { Config } from "../../config/schema.ts";
import type { Emit } from "../../events/catalogue.ts";
import type { Awaitable } from "../../lib/awaitable.ts";
import { closeAll } from "../../lib/close-all.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import type { Redis } from "../../lib/redis/redis.ts";
import type { Account } from "../account-schema.ts";
import type { LoginGuard } from "../login-guard.ts";
import { guardFigures } from "../memory/memory-login-guard.ts";
import type { Nonces } from "../nonces.ts";
import { createDocuments, type NoteDocument } from "./documents.ts";
import { openRedisApiKeys, type RedisApiKeys } from "./redis-api-keys.ts";
import { openRedisCodes, type RedisCodes } from "./redis-codes.ts";
import { openRedisExternalLogins, type RedisExternalLogins } from "./redis-external-logins.ts";
import { openRedisGroups, type RedisGroups } from "./redis-groups.ts";
import { createRedisLoginGuard } from "./redis-login-guard.ts";
import { openRedisNonces } from "./redis-nonces.ts";
import { openRedisSessions, type RedisSessions } from "./redis-sessions.ts";
import { openRedisUsers, type RedisUsers } from "./redis-users.ts";
import { sessionFigures } from "../files/session.ts";

export interface RedisIdentityOptions {
  readonly redis: Redis;
  /** The number of the newest record of a tag's log that this process has; "0" if it has none. */
  readonly lastSeq: (tag: string) => string;
  /** Default: nobody is told. */
  readonly note?: NoteDocument;
  /** Documents.trustedAwayMs */
  readonly trustedAwayMs?: (() => number) | undefined;
  /** DocumentsOptions.waitsForMending; default: never. */
  readonly waitsForMending?: (() => boolean) | undefined;
  readonly groups: Config["groups"];
  /** [auth] in force, which may change. */
  readonly auth: () => Config["auth"];
  /** [panel] in force, which may change. */
  readonly panel: () => Config["panel"];
  /** [security] in force, which may change. */
  readonly security: () => Config["security"];
  /** The tiers of config.toml now. */
  readonly tierNames: () => readonly string[];
  /** Passwords.hash */
  readonly hashPassword: (password: string) => Promise<string>;
  /** Users.get of those in use; by default of these. */
  readonly findAccount?: ((name: string) => Awaitable<Account | undefined>) | undefined;
  readonly clock: Clock;
  readonly log: Log;
  readonly emit: Emit;
  readonly newId: () => string;
  /** ms since the epoch instead of Redis's time. For tests. */
  readonly now?: (() => number) | undefined;
}

/** Who may enter, shared by all processes over one Redis. */
export interface RedisIdentity {
  readonly users: RedisUsers;
  readonly sessions: RedisSessions;
  readonly apiKeys: RedisApiKeys;
  readonly groups: RedisGroups;
  readonly codes: RedisCodes;
  readonly externalLogins: RedisExternalLogins;
  readonly loginGuard: LoginGuard;
  readonly nonces: Nonces;
  /** Takes over a changed config. */
  configure(config: Pick<Config, "groups">): void;
  /** Waits for what is being stored. Call it before the connection is closed. */
  close(): Promise<void>;
}

/** Opens all of these ports. Rejects with RedisUnavailableError or RedisReplyError. */
export async function openRedisIdentity(options: RedisIdentityOptions): Promise<RedisIdentity> {
  const { redis, auth, panel, clock, log, emit, newId, now } = options;
  const documents = createDocuments(redis, options);
  const nonces = await openRedisNonces(redis, now);
  const { tierNames, hashPassword } = options;
  const users = openRedisUsers({ redis, documents, clock, log, tierNames, hashPassword });
  const sessions = openRedisSessions({
    redis,
    documents,
    clock,
    log,
    emit,
    newId,
    now,
    findAccount: options.findAccount ?? ((name) => users.get(name)),
    forgetAccount: (name) => {
      users.forget(name);
    },
    figures: sessionFigures(auth, panel),
  });
  const apiKeys = openRedisApiKeys({ redis, documents, clock, log, newId });
  const monotonic = (): number => clock.monotonic();
  const groups = openRedisGroups({ redis, documents, groups: options.groups, log, monotonic });
  const codes = openRedisCodes(documents, log);
  const externalLogins = openRedisExternalLogins(documents, log);
  const figures = guardFigures(options.security);
  return {
    users,
    sessions,
    apiKeys,
    groups,
    codes,
    externalLogins,
    nonces,
    loginGuard: createRedisLoginGuard({ redis, figures, clock, emit, now }),
    configure(config) {
      groups.configure(config.groups);
      users.recheck();
    },
    close: () => closeAll([users, sessions, apiKeys, groups, codes, externalLogins].map((one) => () => one.close())),
  };
}
