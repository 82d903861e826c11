import { AppError } from "../../errors.ts";
import type { Emit } from "../../events/catalogue.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Account } from "../account-schema.ts";
import type { Users } from "../users.ts";
import type { CheckGuarded } from "./login.ts";
import { checkNewPassword } from "../passwords/new-password.ts";
import type { CookieGrant, Origin, Sessions } from "../sessions.ts";
import type { TokenPair, TokenPairs } from "../sessions/token-pairs.ts";

/** A user's request to change the password. */
export interface PasswordChange {
  readonly account: Account;
  readonly currentPassword: string;
  readonly newPassword: string;
  readonly origin: Origin;
}

export interface PasswordChangeOptions {
  readonly users: Pick<Users, "get" | "update">;
  readonly guarded: CheckGuarded;
  readonly sessions: Pick<Sessions, "endAll" | "openCookie">;
  readonly pairs: Pick<TokenPairs, "open">;
  readonly emit: Emit;
  readonly clock: Clock;
}

/**
 * The change of one's own password. It ends all sessions and tokens of the user, and starts a new session for the
 * caller.
 *
 * Both throw AppError `invalid_request`, `forbidden` (the current password is wrong), `login_blocked`, `login_busy`,
 * `storage_unavailable` or `conflict` (the user's file is invalid).
 */
export interface PasswordChanges {
  changePassword(change: PasswordChange): Promise<TokenPair>;
  /** The new session has a cookie instead of tokens. */
  changePasswordWithCookie(change: PasswordChange): Promise<CookieGrant>;
}

export function createPasswordChange(options: PasswordChangeOptions): PasswordChanges {
  const { users, guarded, sessions, emit, clock } = options;

  return {
    changePassword: async (change) => options.pairs.open(await changed(change), change.origin),
    changePasswordWithCookie: async (change) => sessions.openCookie(await changed(change), change.origin),
  };

  async function changed({ account, currentPassword, newPassword, origin }: PasswordChange): Promise<Account> {
    const user = account.username;
    checkNewPassword(newPassword, user, "new_password");
    // A stolen token must not allow guessing the password.
    const attempt = { user, known: true, ip: origin.ip, traceId: origin.traceId };
    const isRight = await guarded(attempt, account.password_hash, currentPassword);
    // Not 401: the token is valid, and a client that logs in and tries again would only fail twice.
    if (!isRight || (await users.get(user))?.password_hash !== account.password_hash) {
      throw new AppError("forbidden", { param: "current_password", message: "The current password is wrong." });
    }
    if (newPassword === currentPassword) {
      throw new AppError("invalid_request", { param: "new_password", message: "That is the current password." });
    }
    // Raises the token_version, which invalidates all existing tokens and sessions.
    const next = await users.update(user, { password: newPassword, must_change_password: null });
    // They can't be used any more, so a failed write doesn't matter for now.
    await Promise.resolve(sessions.endAll(user)).catch(() => undefined);
    const { ip, traceId } = origin;
    emit({ type: "password.changed", at: clock.now(), traceId, ip, user, subject: "" });
    return next;
  }
}
