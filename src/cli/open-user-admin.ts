import { randomUUID } from "node:crypto";
import type { AccountProblem } from "../identity/users.ts";
import { openFileApiKeys } from "../identity/files/file-api-keys.ts";
import { openFileSessions } from "../identity/files/file-sessions.ts";
import { createCredentialsAdmin, type CredentialsAdmin } from "../admin/credentials-admin.ts";
import type { Actor } from "../admin/audit.ts";
import { createUserAdmin, type UserAdmin } from "../admin/user-admin.ts";
import { closeAll, type Closer } from "../lib/close-all.ts";
import { systemClock as clock } from "../lib/clock.ts";
import { LockedError } from "../lib/files/lock-file.ts";
import { openOffline, silent, type Offline } from "./open-offline.ts";
import type { CommandIo } from "./this-process.ts";

/** The context of the commands: the same operations as the admin API. */
export interface CliAdmin {
  readonly users: UserAdmin;
  readonly credentials: CredentialsAdmin;
  readonly problems: readonly AccountProblem[];
  /** Who runs the command. */
  readonly actor: Actor;
}

export interface OpenOptions {
  readonly configFile: string | undefined;
  readonly io: CommandIo;
  /**
   * The equivalent route of a running server. Set for commands that need sessions and keys: a server keeps these in
   * memory and would overwrite them, so such commands can't run beside a server.
   */
  readonly route?: string | undefined;
}

/** Opens the files, does the work, and closes them again. Rejects if a running server prevents it. */
export async function withUserAdmin(options: OpenOptions, work: (admin: CliAdmin) => Promise<void>): Promise<void> {
  const closers: Closer[] = [];
  try {
    await work(await open(options, closers));
  } finally {
    await closeAll(closers);
  }
}

async function open({ configFile, io, route }: OpenOptions, closers: Closer[]): Promise<CliAdmin> {
  const offline = await openOffline(configFile, io, closers);
  const { users, audit, actor, usersDir } = offline;
  const { auth, quota } = offline.config;
  const tierNames = () => Object.keys(quota.tiers);
  if (route !== undefined) await lock(offline, route);
  const { sessions, apiKeys } = route === undefined ? untouched : await openAccess();
  const parts = { users, sessions, apiKeys, audit };

  async function openAccess() {
    const owned = { usersDir, clock, log: silent, newId: randomUUID };
    const sessions = await openFileSessions({
      ...owned,
      findAccount: (name) => users.get(name),
      emit: () => undefined,
      sessionSeconds: auth.session_seconds,
      idleSeconds: auth.refresh_token_seconds,
      leewaySeconds: auth.refresh_leeway_seconds,
      maxSessions: auth.max_sessions,
    });
    closers.push(() => sessions.close());
    const apiKeys = await openFileApiKeys(owned);
    closers.push(() => apiKeys.close());
    return { sessions, apiKeys };
  }

  return {
    users: createUserAdmin({ ...parts, tierNames, clock }),
    // Only the server knows the login locks.
    credentials: createCredentialsAdmin({ ...parts, loginGuard: { locked: () => [], unlock: () => false } }),
    problems: users.problems(),
    actor,
  };
}

async function lock(offline: Offline, route: string): Promise<void> {
  try {
    await offline.lock();
  } catch (error) {
    if (!(error instanceof LockedError)) throw error;
    const way = `Sessions and API keys are in the hands of the running server: use ${route}, or stop it first.`;
    throw new Error(`${way} (${error.message})`);
  }
}

/**
 * Beside a server, sessions and keys are not touched: a new password or a disabled account ends sessions through the
 * token version in the user file, which the server notices.
 */
const untouched = {
  sessions: { list: () => [], end: () => false, endAll: () => 0 },
  apiKeys: { list: () => [], revoke: () => false, revokeAll: () => 0 },
};
