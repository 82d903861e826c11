import { createHmac, randomBytes } from "node:crypto";
import { hasSecondFactor, type SecondFactors } from "./second-factor.ts";
import { checkUsable, createAddressCheck } from "../account-state.ts";
import type { Config } from "../../config/schema.ts";
import { AppError } from "../../errors.ts";
import type { Emit } from "../../events/catalogue.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import type { Account } from "../account-schema.ts";
import type { LoginAttempt, LoginGuard } from "../login-guard.ts";
import type { Passwords } from "../passwords/password.ts";
import type { CookieGrant, Origin, Sessions } from "../sessions.ts";
import type { TokenPair, TokenPairs } from "../sessions/token-pairs.ts";
import { createTokenReuse } from "../sessions/token-reuse.ts";
import { checkUserName } from "../user-name.ts";
import type { Users } from "../users.ts";

/** A login attempt. */
export interface LoginRequest {
  readonly username: string;
  readonly password: string;
  /** A code of the second factor; needed where the account has one. */
  readonly otp?: string | undefined;
  readonly origin: Origin;
}

export interface LoginOptions {
  readonly users: Pick<Users, "get" | "rehash">;
  readonly loginGuard: Pick<LoginGuard, "check">;
  readonly passwords: Pick<Passwords, "hash" | "needsRehash">;
  readonly guarded: CheckGuarded;
  readonly secondFactors: Pick<SecondFactors, "use">;
  readonly clock: Clock;
  readonly log: Log;
  readonly sessions: Pick<Sessions, "isUntouched" | "openCookie">;
  readonly pairs: Pick<TokenPairs, "open">;
  /** A repeated login within this time gets the same tokens; 0 turns it off. */
  readonly reuseSeconds: () => number;
  /** security.password_login in force. */
  readonly passwordLogin: () => Config["security"]["password_login"];
  readonly emit: Emit;
}

/**
 * Both emit `login.succeeded` or `login.failed`, and throw AppError `invalid_request` (an invalid user name),
 * `invalid_credentials`, `otp_required`, `otp_invalid`, `account_disabled`, `address_not_allowed`, `password_login_off`,
 * `login_blocked` or `login_busy`.
 */
export interface Logins {
  /** Opens a session with tokens. */
  login(request: LoginRequest): Promise<TokenPair>;
  /** Opens a session with a cookie: always a new one, so that nobody can know its id before. */
  loginWithCookie(request: LoginRequest): Promise<CookieGrant>;
}

/** An attempt, with the account as it was before the password was verified. */
interface Login {
  readonly attempt: LoginAttempt;
  readonly before: Account | undefined;
  readonly hash: string | undefined;
  readonly password: string;
  readonly otp: string;
  readonly passwordDigest: Buffer;
  readonly origin: Origin;
}

/**
 * Creates the login. An unknown user and a wrong password give the same error after the same work; a disabled account
 * is revealed only to a client with its password. Concurrent logins of one user with one password share a single argon2
 * run.
 */
export function createLogin(options: LoginOptions): Logins {
  const { users, loginGuard, passwords, guarded, clock, reuseSeconds, passwordLogin, sessions } = options;
  const checkAddress = createAddressCheck();
  const reuse = createTokenReuse({
    clock,
    reuseSeconds,
    isUntouched: ({ sessionId }) => sessions.isUntouched(sessionId),
  });
  // Passwords are compared and remembered only as a digest under a key of this process.
  const digestKey = randomBytes(32);
  /** Running verifications, by digest; as many as Passwords.matches allows to wait. */
  const running = new Map<string, Promise<string | undefined>>();

  return {
    login: (request) => reported(request, withTokens),
    loginWithCookie: (request) =>
      reported(request, async (login) => sessions.openCookie(await verified(login), login.origin)),
  };

  /** Admits the attempt, runs it, and reports the outcome. */
  async function reported<Result>(
    { username, password, otp = "", origin }: LoginRequest,
    run: (login: Login) => Promise<Result>,
  ): Promise<Result> {
    const event = { at: clock.now(), traceId: origin.traceId, ip: origin.ip };
    let user = "";
    let known = false;
    try {
      if (passwordLogin() === "off") throw new AppError("password_login_off");
      user = checkUserName(username);
      const before = await users.get(user);
      known = before !== undefined;
      const attempt = { user, known, ip: origin.ip, traceId: origin.traceId };
      // First of all, even before steps that cost no hashing: a right guess must not pass while a wrong one is refused.
      await loginGuard.check(attempt);
      // A service account is one without a password: it costs the same work, and says the same.
      const hash = before?.service === true ? undefined : before?.password_hash;
      const result = await run({
        attempt,
        before,
        hash,
        password,
        otp,
        passwordDigest: digestOf(user, password),
        origin,
      });
      options.emit({ type: "login.succeeded", ...event, user });
      return result;
    } catch (error) {
      const reason = error instanceof AppError ? error.code : "internal_error";
      const result = reason === "login_busy" || reason === "login_blocked" ? "blocked" : "failure";
      options.emit({ type: "login.failed", ...event, user, known, result, reason });
      throw error;
    }
  }

  async function withTokens(login: Login): Promise<TokenPair> {
    const { before, hash, passwordDigest, origin } = login;
    // A code counts once, and what is given again would need none.
    if (before !== undefined && hash !== undefined && !hasSecondFactor(before)) {
      const reused = await reuse.find({ account: before, passwordDigest, origin });
      if (reused !== undefined) {
        checkMayEnter(before, origin);
        return reused;
      }
    }

    const account = await verified(login);
    if (hasSecondFactor(account)) return options.pairs.open(account, origin);
    // Of several logins that shared the run, the first opens a session for all.
    return reuse.findOrKeep({ account, passwordDigest, origin }, () => options.pairs.open(account, origin));
  }

  /** The account, if the password is its own and it may be used. */
  async function verified({ attempt, before, hash, password, otp, passwordDigest, origin }: Login): Promise<Account> {
    const useCode =
      before !== undefined && hasSecondFactor(before) ? () => options.secondFactors.use(attempt.user, otp) : undefined;
    const proven = await (useCode === undefined
      ? proveOnce(attempt, hash, passwordDigest, password)
      : provenHash(attempt, hash, password, useCode));
    // The current account: it may have changed while argon2 ran.
    const account = await users.get(attempt.user);
    if (account === undefined || account.service === true || account.password_hash !== proven)
      throw new AppError("invalid_credentials");
    if (account.totp_secret !== before?.totp_secret) throw new AppError("otp_required");
    checkMayEnter(account, origin);
    return account;
  }

  /** Only for those who know the password: who is an admin is nobody else's business. */
  function checkMayEnter(account: Account, origin: Origin): void {
    checkUsable(account, clock.now());
    checkAddress(account, origin.ip);
    if (passwordLogin() !== "all" && !account.roles.includes("admin")) throw new AppError("password_login_off");
  }

  /** The account's hash if the password matches it. */
  function proveOnce(
    attempt: LoginAttempt,
    hash: string | undefined,
    digest: Buffer,
    password: string,
  ): Promise<string | undefined> {
    const key = digest.toString("base64");
    let run = running.get(key);
    if (run === undefined) {
      run = provenHash(attempt, hash, password).finally(() => running.delete(key));
      running.set(key, run);
    }
    return run;
  }

  async function provenHash(
    attempt: LoginAttempt,
    hash: string | undefined,
    password: string,
    useCode?: () => Promise<void>,
  ): Promise<string | undefined> {
    const isRight = await guarded(attempt, hash, password, useCode);
    if (!isRight || hash === undefined) return undefined;
    return passwords.needsRehash(hash) ? rehash(attempt.user, hash, password) : hash;
  }

  /** Only now is the plaintext available for a stronger hash. A failure doesn't fail the login. */
  async function rehash(user: string, oldHash: string, password: string): Promise<string> {
    try {
      const newHash = await passwords.hash(password);
      await users.rehash(user, oldHash, newHash);
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

/**
 * Checks the password of an attempt, as Passwords.matches does, and then its code, if the login guard admits each; reports
 * both outcomes to the guard. A blocked login never costs an argon2 run.
 *
 * @param useCode uses up the code of the second factor; absent: the account has none
 * @throws AppError `login_blocked` with retryAfterSeconds; `login_busy` and `otp_required`, which the guard does not
 * count; `otp_invalid`, which it does; `storage_unavailable`, whatever the outcome, if it can't be reported
 */
export type CheckGuarded = (
  attempt: LoginAttempt,
  hash: string | undefined,
  password: string,
  useCode?: () => Promise<void>,
) => Promise<boolean>;

export function createCheckGuarded(
  loginGuard: Pick<LoginGuard, "start">,
  passwords: Pick<Passwords, "matches">,
): CheckGuarded {
  return async (attempt, hash, password, useCode) => {
    const one = await loginGuard.start(attempt);
    let isRight: boolean;
    try {
      isRight = await passwords.matches(hash, password, one.isKnown ? "known_address" : "account");
      if (isRight && useCode !== undefined) await useGuarded(attempt, useCode);
    } catch (error) {
      // With a wrong code too: it is counted as such, and forgives no wrong password. If that fails as well, the attempt
      // ends by itself.
      await Promise.resolve(one.dropped()).catch(() => undefined);
      throw error;
    }
    await (isRight ? one.succeeded() : one.failed());
    return isRight;
  };

  /** Wrong codes are counted for the account, whatever addresses they come from, and apart from wrong passwords. */
  async function useGuarded(attempt: LoginAttempt, useCode: () => Promise<void>): Promise<void> {
    const one = await loginGuard.start({ ...attempt, guesses: "code" });
    try {
      await useCode();
    } catch (error) {
      if (error instanceof AppError && error.code === "otp_invalid") await one.failed();
      else await Promise.resolve(one.dropped()).catch(() => undefined);
      throw error;
    }
    await one.succeeded();
  }
}
