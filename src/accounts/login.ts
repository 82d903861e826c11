import { createHmac, randomBytes } from "node:crypto";
import { AppError } from "../errors.ts";
import type { Emit } from "../events/types.ts";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import type { Account } from "./account-schema.ts";
import type { AccountStore } from "./account-store.ts";
import type { Passwords } from "./password.ts";
import { createTokenReuse, type IssuedToken } from "./token-reuse.ts";
import { checkUserName } from "./user-name.ts";

/** One attempt to log in. */
export interface LoginRequest {
  readonly username: string;
  readonly password: string;
  readonly ip: string;
  readonly traceId: string;
}

/** What a login gives; expiresAt in ms since the epoch. */
export interface LoginResult extends IssuedToken {
  readonly account: Account;
}

/** What createLogin needs. */
export interface LoginOptions {
  readonly store: Pick<AccountStore, "get" | "rehash">;
  readonly passwords: Passwords;
  readonly clock: Clock;
  readonly log: Log;
  /** Signs an access token. */
  readonly issueToken: (account: Account) => IssuedToken;
  /** A repeated login inside this time gets the same token; 0 turns it off. */
  readonly reuseSeconds: number;
  readonly emit: Emit;
}

/**
 * Makes the login. Unknown user and wrong password give the same error after the same work; that an account is
 * disabled is said only to who knows its password. Logins of one user with one password at the same time share a
 * single argon2 run.
 *
 * @returns a function that emits `login.succeeded` or `login.failed` and throws AppError `invalid_request` (the name
 *   can't be one), `invalid_credentials`, `account_disabled` or `login_busy`
 */
export function createLogin(options: LoginOptions): (request: LoginRequest) => Promise<LoginResult> {
  const { store, passwords, clock } = options;
  const reuse = createTokenReuse(options);
  // Passwords are compared and remembered only as a digest under a key that this process alone knows.
  const digestKey = randomBytes(32);
  /** Verifications that run now, by digest; as many as passwords.verify lets wait. */
  const running = new Map<string, Promise<string | undefined>>();

  return async ({ username, password, ip, traceId }) => {
    const event = { at: clock.now(), traceId, ip };
    let user = "";
    try {
      user = checkUserName(username);
      const result = await logIn(user, password);
      options.emit({ type: "login.succeeded", ...event, user });
      return result;
    } catch (error) {
      const reason = error instanceof AppError ? error.code : "internal_error";
      const result = reason === "login_busy" ? "blocked" : "failure";
      options.emit({ type: "login.failed", ...event, user, known: store.get(user) !== undefined, result, reason });
      throw error;
    }
  };

  async function logIn(user: string, password: string): Promise<LoginResult> {
    const digest = digestOf(user, password);
    const before = store.get(user);
    const reused = before?.is_active ? reuse.find(before, digest) : undefined;
    if (before !== undefined && reused !== undefined) return { account: before, ...reused };

    const provenHash = await verifyOnce(user, digest, password);
    // As it is now: it may have been changed while argon2 ran.
    const account = store.get(user);
    if (account === undefined || account.password_hash !== provenHash) throw new AppError("invalid_credentials");
    if (!account.is_active) throw new AppError("account_disabled");
    // Of several logins that shared the run, the first has issued a token already.
    const shared = reuse.find(account, digest);
    if (shared !== undefined) return { account, ...shared };
    const issued = options.issueToken(account);
    reuse.keep(account, digest, issued);
    return { account, ...issued };
  }

  /** The account's hash if the password belongs to it. */
  function verifyOnce(user: string, digest: Buffer, password: string): Promise<string | undefined> {
    const key = digest.toString("base64");
    let run = running.get(key);
    if (run === undefined) {
      run = verify(user, password).finally(() => running.delete(key));
      running.set(key, run);
    }
    return run;
  }

  async function verify(user: string, password: string): Promise<string | undefined> {
    const hash = store.get(user)?.password_hash;
    const right = await passwords.verify(hash, password);
    if (!right || hash === undefined) return undefined;
    return passwords.needsRehash(hash) ? rehash(user, hash, password) : hash;
  }

  /** Only now is the plaintext at hand to make a stronger hash of. Failing at it doesn't fail the login. */
  async function rehash(user: string, oldHash: string, password: string): Promise<string> {
    try {
      const newHash = await passwords.hash(password);
      await store.rehash(user, oldHash, newHash);
      return newHash;
    } catch (error) {
      options.log.warn({ user, err: error }, "the password could not be hashed anew with today's parameters");
      return oldHash;
    }
  }

  function digestOf(user: string, password: string): Buffer {
    // A password past 1024 bytes is wrong whatever it is, so there is no need to read all of it.
    return createHmac("sha256", digestKey)
      .update(`${user}\0${password.slice(0, 1025)}`)
      .digest();
  }
}
