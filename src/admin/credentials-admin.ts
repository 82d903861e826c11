import type { Users } from "../identity/users.ts";
import type { ApiKeyInfo, ApiKeys } from "../identity/api-keys.ts";
import type { LockedLogin, LoginGuard } from "../identity/login-guard.ts";
import type { SessionInfo, Sessions } from "../identity/sessions.ts";
import { checkUserName } from "../identity/user-name.ts";
import { AppError } from "../errors.ts";
import type { Actor, Audit } from "./audit.ts";
import { findUser } from "./find-user.ts";

/** All methods throw AppError `invalid_request` for an invalid user name, and `not_found`. */
export interface CredentialsAdmin {
  sessions(name: string): Promise<readonly SessionInfo[]>;
  /** Ends one session of a user. The next request with one of its tokens is refused. Throws `storage_unavailable`. */
  endSession(actor: Actor, name: string, id: string): Promise<void>;
  /** Ends all sessions; resolves to how many. */
  endSessions(actor: Actor, name: string): Promise<number>;
  keys(name: string): Promise<readonly ApiKeyInfo[]>;
  /** Revokes an API key. The next request with it is refused. Throws `storage_unavailable`. */
  revokeKey(actor: Actor, name: string, id: string): Promise<void>;
  locks(): Promise<readonly LockedLogin[]>;
  /** Forgets the failed logins of an account; returns whether there were any. Also for nonexistent names. */
  unlock(actor: Actor, name: string): Promise<boolean>;
}

export interface CredentialsAdminOptions {
  readonly users: Pick<Users, "get">;
  readonly sessions: Pick<Sessions, "list" | "end" | "endAll">;
  readonly apiKeys: Pick<ApiKeys, "list" | "revoke">;
  readonly loginGuard: Pick<LoginGuard, "locked" | "unlock">;
  readonly audit: Audit;
}

/**
 * Manages users' sessions, API keys and login locks. A change that could not be written to disk is in force all the
 * same, so it is audited before the error reaches the caller.
 */
export function createCredentialsAdmin(options: CredentialsAdminOptions): CredentialsAdmin {
  const { users, sessions, apiKeys, loginGuard, audit } = options;

  return {
    sessions: async (name) => sessions.list((await findUser(users, name)).username),
    async endSession(actor, name, id) {
      await findUser(users, name);
      const session = (await sessions.list(name)).find((one) => one.id === id);
      if (session === undefined) throw new AppError("not_found", { message: `${name} has no such session.` });
      const { createdAt, ip, client } = session;
      const before = { created_at: new Date(createdAt), ip, client };
      try {
        await sessions.end(name, id);
      } finally {
        await audit.record(actor, { action: "sessions.revoked", user: name, subject: id, before, after: null });
      }
    },
    async endSessions(actor, name) {
      await findUser(users, name);
      const ids = (await sessions.list(name)).map(({ id }) => id);
      try {
        await sessions.endAll(name);
      } finally {
        const change = { action: "sessions.revoked", user: name, subject: "*", before: { ids }, after: null } as const;
        if (ids.length > 0) await audit.record(actor, change);
      }
      return ids.length;
    },
    keys: async (name) => apiKeys.list((await findUser(users, name)).username),
    async revokeKey(actor, name, id) {
      await findUser(users, name);
      const key = (await apiKeys.list(name)).find((one) => one.id === id);
      if (key === undefined) throw new AppError("not_found", { message: `${name} has no such API key.` });
      const before = { name: key.name, created_at: new Date(key.createdAt) };
      try {
        await apiKeys.revoke(name, id);
      } finally {
        await audit.record(actor, { action: "api_key.revoked", user: name, subject: id, before, after: null });
      }
    },
    locks: async () => loginGuard.locked(),
    async unlock(actor, name) {
      const { by: admin, ip, traceId } = actor;
      const user = checkUserName(name);
      const known = (await users.get(user)) !== undefined;
      const found = await loginGuard.unlock({ user, known, admin, ip, traceId });
      if (!found) await findUser(users, name);
      else {
        const [before, after] = [{ failed_logins: true }, { failed_logins: false }];
        await audit.record(actor, { action: "user.login_unlocked", user: name, before, after });
      }
      return found;
    },
  };
}
