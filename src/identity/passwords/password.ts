import argon2 from "argon2";
import { randomBytes } from "node:crypto";
import { AppError } from "../../errors.ts";
import { checkPasswordLength, maxPasswordBytes } from "./new-password.ts";

/** memoryCost in KiB. OWASP's first choice for argon2id; about 19 ms of one core. */
const parameters = { type: argon2.argon2id, memoryCost: 19_456, timeCost: 2, parallelism: 1 };

/** The slow part, replaceable so that tests can count it, or do it once for all of them. */
export interface Hasher {
  hash(password: string): Promise<string>;
  verify(hash: string, password: string): Promise<boolean>;
}

/** Hashes and verifies passwords, a few at a time. */
export interface Passwords {
  /**
   * Hashes a new password.
   *
   * @param from whose it is. Operators, users who are logged in, and the startup wait their turn however long the queue
   * is; strangers who register have a short queue of their own
   * @throws AppError `invalid_request` (param "password") unless it has 8 to 1024 bytes; `login_busy` if too many
   * strangers are waiting already
   */
  hash(password: string, from?: "trusted" | "stranger"): Promise<string>;
  /**
   * Whether the password matches this hash. Without a hash (unknown user) it does the same work and returns false.
   *
   * @param from whether the account has logged in from there recently; such logins wait in their own queue
   * @throws AppError `login_busy` if too many are waiting already
   */
  matches(hash: string | undefined, password: string, from?: "known_address" | "account"): Promise<boolean>;
  /** Whether the hash was made with weaker parameters than today's. */
  needsRehash(hash: string): boolean;
  /** Verifications and hashes waiting for their turn. */
  waiting(): number;
}

export interface PasswordsOptions {
  /** Concurrent argon2 runs. Each takes a thread of libuv's pool of four, which the journal's syncs need too. */
  readonly maxHashes: number;
  /** Verifications that may wait in a queue, a fifth of that for strangers; one more gets `login_busy`. */
  readonly maxWaiting: number;
  readonly hasher?: Hasher | undefined;
}

/** A queue of waiting tasks, first in, first out. */
interface Line {
  readonly maxWaiting: number;
  readonly waiting: (() => void)[];
}

/** As passwords are hashed, unless another hasher is given. */
export const argon2id: Hasher = {
  hash: (password) => argon2.hash(password, parameters),
  verify: (hash, password) => argon2.verify(hash, password),
};

/** Creates the only place where passwords are hashed. */
export function createPasswords(options: PasswordsOptions): Passwords {
  const hasher = options.hasher ?? argon2id;
  const dummyHash = dummyHashOf(parameters);
  const lineOf = (maxWaiting: number): Line => ({ maxWaiting, waiting: [] });
  const lines = {
    known_address: lineOf(options.maxWaiting),
    account: lineOf(options.maxWaiting),
    // Anyone can make up names, from any number of addresses.
    unknown: lineOf(Math.ceil(options.maxWaiting / 5)),
    stranger: lineOf(Math.ceil(options.maxWaiting / 5)),
    trusted: lineOf(Infinity),
  };
  /** In the order in which they are served next. */
  const order = Object.values(lines);
  let running = 0;

  async function inTurn<T>(line: Line, work: () => Promise<T>): Promise<T> {
    if (running >= options.maxHashes) await new Promise<void>((resolve) => line.waiting.push(resolve));
    else running += 1;
    try {
      return await work();
    } finally {
      passOn();
    }
  }

  /** The line, if another task may wait in it. */
  function admitted(line: Line): Line {
    if (running < options.maxHashes || line.waiting.length < line.maxWaiting) return line;
    throw new AppError("login_busy", { retryAfterSeconds: 1 });
  }

  /** Passes the slot to the first of the next queue. The queues take turns, so a long one delays no other. */
  function passOn(): void {
    const next = order.find(({ waiting }) => waiting.length > 0);
    if (next === undefined) {
      running -= 1;
      return;
    }
    order.splice(order.indexOf(next), 1);
    order.push(next);
    next.waiting.shift()?.();
  }

  return {
    hash: async (password, from = "trusted") => {
      checkPasswordLength(password, "password");
      return inTurn(admitted(lines[from]), () => hasher.hash(password));
    },
    matches: async (hash, password, from = "account") => {
      // No password that long was ever set, so an immediate result reveals nothing.
      if (Buffer.byteLength(password) > maxPasswordBytes) return false;
      const line = admitted(hash === undefined ? lines.unknown : lines[from]);
      const right = await inTurn(line, () => hasher.verify(hash ?? dummyHash, password));
      return hash !== undefined && right;
    },
    needsRehash: (hash) => workOf(hash) < parameters.memoryCost * parameters.timeCost,
    waiting: () => order.reduce((sum, { waiting }) => sum + waiting.length, 0),
  };
}

/** A hash that no password has. To verify against it takes as long as against any other with these parameters. */
function dummyHashOf({ memoryCost, timeCost, parallelism }: typeof parameters): string {
  const random = (bytes: number) => randomBytes(bytes).toString("base64").replaceAll("=", "");
  return `$argon2id$v=19$m=${memoryCost},t=${timeCost},p=${parallelism}$${random(16)}$${random(32)}`;
}

/** Memory times passes: one number, so that a hash stronger in one and weaker in the other isn't weakened. */
function workOf(hash: string): number {
  const [, memory, passes] = /\$m=(\d+),t=(\d+),/.exec(hash) ?? [];
  return Number(memory ?? 0) * Number(passes ?? 0);
}
