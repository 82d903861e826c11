import type { Config } from "../config/schema.ts";
import type { ApiKeys } from "../identity/api-keys.ts";
import type { ExternalLogins } from "../identity/external-logins.ts";
import type { Sessions } from "../identity/sessions.ts";
import type { Users } from "../identity/users.ts";
import type { Closer } from "../lib/close-all.ts";
import type { Ledger } from "../quota/ledger.ts";
import type { CommandIo } from "./this-process.ts";

/** Sessions, API keys and linked logins. */
export interface Access {
  readonly sessions: Pick<Sessions, "list" | "end" | "endAll">;
  readonly apiKeys: Pick<ApiKeys, "list" | "revoke" | "revokeAll">;
  readonly externalLogins: Pick<ExternalLogins, "unlinkAll">;
}

/** The state that `npm run user` and `npm run quota` work on: the users folder, or what all servers share in Redis. */
export interface StatePorts {
  readonly users: Users;
  /** What a change to an account may end. In files it has nothing, since a server has sessions and keys in memory. */
  readonly access: Access;
  /** For what is about sessions and keys. Rejects with LockedError while a server has them in memory. */
  openAccess(): Promise<Access>;
  /** What is used. Rejects with LockedError while a server has it in memory. */
  openLedger(): Promise<Pick<Ledger, "buckets" | "adjust" | "reset" | "problems">>;
  /**
   * Resets periods that begin in the future, because a clock was wrong, to the current ones. Returns the affected
   * users. Rejects with LockedError beside a server, and where the state is in Redis.
   * @param name absent: all users
   */
  bringBack(name?: string): Promise<readonly string[]>;
}

export interface StateOptions {
  readonly config: Config;
  readonly usersDir: string;
  readonly io: CommandIo;
  /** Passwords.hash */
  readonly hashPassword: (password: string) => Promise<string>;
  /** Called for each resource that must be closed, in the order of opening. */
  readonly onOpen: (close: Closer) => void;
}
