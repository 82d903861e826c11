import { createHmac, randomBytes } from "node:crypto";
import { checkUsable } from "../account-state.ts";
import { AppError } from "../../errors.ts";
import type { Emit } from "../../events/types.ts";
import type { AccountStore } from "../files/account-store.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import type { LoginAttempt, LoginGuard } from "./login-guard.ts";
import type { Passwords } from "../passwords/password.ts";
import type { Origin, Sessions } from "../sessions/sessions.ts";
import type { TokenPair, TokenPairs } from "../sessions/token-pairs.ts";
import { createTokenReuse } from "../sessions/token-reuse.ts";
import { checkUserName } from "../user-name.ts";

/** A login attempt. */
export interface LoginRequest {
  readonly username: string;
  readonly password: string;
  readonly origin: Origin;
}

export interface LoginOptions {
  readonly store: Pick<AccountStore, "get" | "rehash">;
  readonly passwords: Pick<Passwords, "hash" | "needsRehash">;
  readonly guarded: GuardedPasswords;
  readonly clock: Clock;
  readonly log: Log;
  readonly sessions: Pick<Sessions, "isUntouched">;
  readonly pairs: Pick<TokenPairs, "open">;
  /** A repeated login within this time gets the same tokens; 0 turns it off. */
  readonly reuseSeconds: () => number;
  readonly emit: Emit;
}

/**
 * Creates the login. An unknown user and a wrong password give the same error after the same work; a disabled account
 * is revealed only to a client with its password. Concurrent logins of one user with one password share a single argon2
 * run.
 *
 * @returns a function that emits `login.succeeded` or `login.failed` and throws AppError `invalid_request` (an invalid
 * user name), `invalid_credentials`, `account_disabled`, `login_blocked` or `login_busy`
 */
export function createLogin(options: LoginOptions): (request: LoginRequest) => Promise<TokenPair> {
  const { store, passwords, guarded, clock, reuseSeconds, sessions } = options;
  const isUntouched = ({ sessionId }: TokenPair) => sessions.isUntouched(sessionId);
  const reuse = createTokenReuse({ clock, reuseSeconds, isUntouched });
  // Passwords are compared and remembered only as a digest under a key of this process.
  const digestKey = randomBytes(32);
  /** Running verifications, by digest; as many as passwords.verify allows to wait. */
  const running = new Map<string, Promise<string | undefined>>();

  return async ({ username, password, origin }) => {
    const event = { at: clock.now(), traceId: origin.traceId, ip: origin.ip };
    let user = "";
    try {
      user = checkUserName(username);
      const result = await logIn(user, password, origin);
      options.emit({ type: "login.succeeded", ...event, user });
      return result;
    } catch (error) {
      const reason = error instanceof AppError ? error.code : "internal_error";
      const result = reason === "login_busy" || reason === "login_blocked" ? "blocked" : "failure";
      options.emit({ type: "login.failed", ...event, user, known: store.get(user) !== undefined, result, reason });
      throw error;
    }
  };

  async function logIn(user: string, password: string, origin: Origin): Promise<TokenPair> {
    // First of all, even before steps that cost no hashing: a right guess must not pass while a wrong one is refused.
    guarded.admit(user, origin.ip);
    const passwordDigest = digestOf(user, password);
    const before = store.get(user);
    if (before !== undefined) {
      const reused = reuse.find({ account: before, passwordDigest, origin });
      if (reused !== undefined) {
        checkUsable(before, clock.now());
        return reused;
      }
    }

    const provenHash = await verifyOnce(user, passwordDigest, password, origin);
    // The current account: it may have changed while argon2 ran.
    const account = store.get(user);
    if (account === undefined || account.password_hash !== provenHash) throw new AppError("invalid_credentials");
    checkUsable(account, clock.now());
    // Of several logins that shared the run, the first has already opened a session.
    const login = { account, passwordDigest, origin };
    const shared = reuse.find(login);
    if (shared !== undefined) return shared;
    const opened = options.pairs.open(account, origin);
    reuse.keep(login, opened);
    return opened;
  }

  /** The account's hash if the password matches it. */
  function verifyOnce(user: string, digest: Buffer, password: string, origin: Origin): Promise<string | undefined> {
    const key = digest.toString("base64");
    let run = running.get(key);
    if (run === undefined) {
      run = verify(user, password, origin).finally(() => running.delete(key));
      running.set(key, run);
    }
    return run;
  }

  async function verify(user: string, password: string, { ip, traceId }: Origin): Promise<string | undefined> {
    const hash = store.get(user)?.password_hash;
    const right = await guarded.verify({ user, ip, traceId }, hash, password);
    if (!right || hash === undefined) return undefined;
    return passwords.needsRehash(hash) ? rehash(user, hash, password) : hash;
  }

  /** Only now is the plaintext available for a stronger hash. A failure doesn't fail the login. */
  async function rehash(user: string, oldHash: string, password: string): Promise<string> {
    try {
      const newHash = await passwords.hash(password);
      await store.rehash(user, oldHash, newHash);
      return newHash;
    } catch (error) {
      options.log.warn({ user, err: error }, "the password could not be rehashed with the current parameters");
      return oldHash;
    }
  }

  function digestOf(user: string, password: string): Buffer {
    // A password longer than 1024 bytes is always wrong, so there is no need to read all of it.
    return createHmac("sha256", digestKey)
      .update(`${user}\0${password.slice(0, 1025)}`)
      .digest();
  }
}

/** Checks passwords of attempts that the login guard admits. */
export interface GuardedPasswords {
  /** @throws AppError `login_blocked` with retryAfterSeconds if the user or the address has to wait */
  admit(user: string, ip: string): void;
  /**
   * As Passwords.verify, and reports the outcome to the guard. Call it in the same tick as `admit`.
   *
   * @throws AppError `login_busy`, which the guard does not count
   */
  verify(attempt: LoginAttempt, hash: string | undefined, password: string): Promise<boolean>;
}

/** Checks the guard first, so that a blocked login never costs an argon2 run. */
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
