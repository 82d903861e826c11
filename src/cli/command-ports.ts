import { randomUUID } from "node:crypto";
import { resolve } from "node:path";
import { createAudit, type Actor, type Audit } from "../admin/audit.ts";
import { loadConfig } from "../config/load.ts";
import type { Config } from "../config/schema.ts";
import { createAuditLog } from "../events/log-files/audit-log.ts";
import { createPasswords } from "../identity/passwords/password.ts";
import { closeAll, type Closer } from "../lib/close-all.ts";
import { systemClock as clock } from "../lib/clock.ts";
import { RedisUnavailableError } from "../lib/redis/redis.ts";
import { createZone } from "../quota/zone.ts";
import { openFilePorts } from "./file-ports.ts";
import type { StatePorts } from "./state-ports.ts";
import type { CommandIo } from "./this-process.ts";

/** The context of a command. */
export interface CommandPorts extends StatePorts {
  readonly config: Config;
  readonly audit: Audit;
  /** Who runs the command. */
  readonly actor: Actor;
}

/** Opens what a config names, the users folder or what is in Redis, does the work, and closes it again. */
export async function withPorts<Result>(
  configFile: string | undefined,
  io: CommandIo,
  work: (ports: CommandPorts) => Promise<Result>,
): Promise<Result> {
  const closers: Closer[] = [];
  try {
    return await work(await open(configFile, io, closers));
  } catch (error) {
    if (!(error instanceof RedisUnavailableError)) throw error;
    const advice = "a change that was begun may have been made, or not: look before you repeat it";
    throw new Error(`${error.message}; ${advice}`, { cause: error });
  } finally {
    await closeAll(closers);
  }
}

async function open(configFile: string | undefined, io: CommandIo, closers: Closer[]): Promise<CommandPorts> {
  const { config, folder } = loadConfig(configFile, io.env, io.cwd);
  const { auth, storage, quota, state } = config;
  const passwords = createPasswords({ maxHashes: auth.max_hashes, maxWaiting: 1 });
  const openState = state.backend === "redis" ? (await import("./redis-ports.ts")).openRedisPorts : openFilePorts;
  const ports = await openState({
    config,
    usersDir: resolve(folder, storage.users_dir),
    io,
    hashPassword: (password) => passwords.hash(password),
    onOpen: (close) => closers.push(close),
  });
  const zone = createZone(quota.timezone);
  const dayOf = (at: number): string => new Date(zone.dateAt(at)).toISOString().slice(0, 10);
  const auditLog = createAuditLog({ logsDir: resolve(folder, storage.logs_dir), dayOf });
  return {
    ...ports,
    config,
    audit: createAudit({ log: auditLog, emit: () => undefined, clock }),
    actor: { by: `cli:${io.user}`, ip: "", traceId: randomUUID() },
  };
}
