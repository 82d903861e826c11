import { AppError } from "../../errors.ts";
import type { LoginAttempt, LoginGuard } from "./login-guard.ts";
import type { Passwords } from "../passwords/password.ts";

/** Checks passwords for those whom the login guard lets. */
export interface GuardedPasswords {
  /** @throws AppError `login_blocked` with retryAfterSeconds where the user or the address has to wait */
  admit(user: string, ip: string): void;
  /**
   * As Passwords.verify, and tells the guard what came of it. Call it in the same tick as `admit`.
   *
   * @throws AppError `login_busy`, which the guard does not count
   */
  verify(attempt: LoginAttempt, hash: string | undefined, password: string): Promise<boolean>;
}

/** Puts the guard before the passwords, so that who is refused costs no argon2 run. */
export function createGuardedPasswords(
  guard: Pick<LoginGuard, "check" | "start">,
  passwords: Pick<Passwords, "verify">,
): GuardedPasswords {
  return {
    admit(user, ip) {
      const block = guard.check(user, ip);
      if (block !== null) throw new AppError("login_blocked", { retryAfterSeconds: block.retryAfterMs / 1000 });
    },
    async verify(attempt, hash, password) {
      const one = guard.start(attempt);
      let right: boolean;
      try {
        right = await passwords.verify(hash, password, one.isKnown ? "known_address" : "account");
      } catch (error) {
        one.dropped();
        throw error;
      }
      if (right) one.succeeded();
      else one.failed();
      return right;
    },
  };
}
