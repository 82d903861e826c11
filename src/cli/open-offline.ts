import { randomUUID } from "node:crypto";
import { resolve } from "node:path";
import { openFileUsers, type FileUsers } from "../identity/files/file-users.ts";
import { createPasswords } from "../identity/passwords/password.ts";
import { createAudit, type Actor, type Audit } from "../admin/audit.ts";
import { loadConfig } from "../config/load.ts";
import type { Config } from "../config/schema.ts";
import { createAuditLog } from "../events/log-files/audit-log.ts";
import type { Closer } from "../lib/close-all.ts";
import { systemClock as clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import { createZone } from "../quota/zone.ts";
import { lockUsers } from "./lock-users.ts";
import type { CommandIo } from "./this-process.ts";

/** The context of every command that changes something. */
export interface Offline {
  readonly config: Config;
  readonly usersDir: string;
  readonly users: FileUsers;
  readonly audit: Audit;
  /** Who runs the command. */
  readonly actor: Actor;
  /** Locks what only one process may use: sessions, keys, the ledger. Rejects with LockedError beside a server. */
  lock(): Promise<void>;
}

/**
 * Opens the user files and the audit log of a config.
 *
 * @param closers receives what must be closed
 */
export async function openOffline(configFile: string | undefined, io: CommandIo, closers: Closer[]): Promise<Offline> {
  const { config, folder } = loadConfig(configFile, io.env, io.cwd);
  const { auth, storage, quota } = config;
  const usersDir = resolve(folder, storage.users_dir);
  const passwords = await createPasswords({ maxHashes: auth.max_hashes, maxWaiting: 1 });
  const users = await openFileUsers({
    usersDir,
    tierNames: () => Object.keys(quota.tiers),
    hashPassword: (password) => passwords.hash(password),
    clock,
    log: silent,
    watch: false,
  });
  closers.push(() => users.close());
  const zone = createZone(quota.timezone);
  const dayOf = (at: number): string => new Date(zone.dateAt(at)).toISOString().slice(0, 10);
  const auditLog = createAuditLog({ logsDir: resolve(folder, storage.logs_dir), dayOf });
  return {
    config,
    usersDir,
    users,
    audit: createAudit({ log: auditLog, emit: ignore, clock }),
    actor: { by: `cli:${io.user}`, ip: "", traceId: randomUUID() },
    async lock() {
      const held = await lockUsers(usersDir, io);
      closers.push(() => held.release());
    },
  };
}

/** Commands print what matters themselves: the problems, and their own outcome. */
export const silent: Log = { debug: ignore, info: ignore, warn: ignore, error: ignore };

function ignore(): void {
  // Discards.
}
