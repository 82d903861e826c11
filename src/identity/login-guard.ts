import type { LoginLocked } from "../events/catalogue.ts";
import type { Awaitable } from "../lib/awaitable.ts";

/** The user and address of a login attempt. */
export interface LoginAttempt {
  /** A valid user name. */
  readonly user: string;
  /** Whether there is an account of that name. */
  readonly known: boolean;
  readonly ip: string;
  readonly traceId: string;
  /**
   * A code of the second factor has counts of its own: only who knows the password can use them up. Default:
   * "password".
   */
  readonly guesses?: "password" | "code";
}

/** A password check in progress. Report its outcome exactly once; one that is never reported ends by itself. */
export interface LoginTry {
  /** Whether the account has logged in from this address recently. */
  readonly isKnown: boolean;
  /** The password was wrong, or the user unknown. */
  failed(): Awaitable<void>;
  /** The password was right. The address is now one of the account's known ones. */
  succeeded(): Awaitable<void>;
  /** The outcome is unknown: it was not checked after all. */
  dropped(): Awaitable<void>;
}

/** An account or address that has to wait before the next attempt. */
export interface LockedLogin {
  readonly scope: LoginLocked["scope"];
  /** null if an address waits for all accounts. */
  readonly user: string | null;
  /** An IPv4 address or an IPv6 network of 64, 56 or 48 bits; null if an account waits for all addresses. */
  readonly address: string | null;
  /** What was guessed; null if an address waits. */
  readonly guesses: "password" | "code" | null;
  readonly failures: number;
  readonly retryAfterMs: number;
}

/** Who forgets an account's failures. */
export interface Unlock {
  readonly user: string;
  /** Whether there is an account of that name. */
  readonly known: boolean;
  readonly admin: string;
  readonly ip: string;
  readonly traceId: string;
}

/** Slows down password guessing. */
export interface LoginGuard {
  /**
   * Whether the user and the address may try now. Changes nothing; call it before every login, also one that costs no
   * hashing: a right guess must not pass while a wrong one is refused.
   *
   * @throws AppError `login_blocked` with retryAfterSeconds if one of them has to wait
   */
  check(attempt: Omit<LoginAttempt, "traceId">): Awaitable<void>;
  /**
   * Checks again, and begins the attempt in the same step: of guesses sent at once none passes before the others count.
   *
   * @throws as `check`
   */
  start(attempt: LoginAttempt): Awaitable<LoginTry>;
  /** Forgets the failures of an account, but not those of addresses. Returns whether there were any. */
  unlock(unlock: Unlock): Awaitable<boolean>;
  /** The accounts and addresses that have to wait now; at most `limit` of each scope. */
  locked(limit?: number): Awaitable<readonly LockedLogin[]>;
}
