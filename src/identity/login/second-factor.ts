import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { AppError } from "../../errors.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Account } from "../account-schema.ts";
import type { Users } from "../users.ts";

/** Length of a step of TOTP, in s. */
const stepSeconds = 30;
const digits = 6;
/** Steps before and after the current one whose codes are taken: clocks differ, and people type slowly. */
const window = 1;
const recoveryCodes = 10;

/** A user's second factor: codes of an authenticator (TOTP, RFC 6238), and recovery codes for when that is lost. */
export interface SecondFactors {
  /**
   * Uses a code up: one of the authenticator, each of which counts once however many come at once, or a recovery code.
   *
   * @throws AppError `otp_required` (the code is empty), `otp_invalid`, and what Users.update throws
   */
  use(user: string, code: string): Promise<void>;
  /**
   * Sets one up, with a secret that the user's authenticator has: the code proves it. Returns recovery codes, to be shown
   * once.
   *
   * @throws AppError `invalid_request` (the secret), `otp_invalid`, `conflict` (there is one), and as Users.update
   */
  enable(user: string, secret: string, code: string): Promise<readonly string[]>;
  /** @throws AppError as Users.update */
  remove(user: string): Promise<void>;
}

export function createSecondFactors(options: {
  readonly users: Pick<Users, "update">;
  readonly clock: Clock;
}): SecondFactors {
  const { users, clock } = options;
  return {
    async use(user, code) {
      if (code.trim() === "") throw new AppError("otp_required");
      await users.update(user, (account) => {
        const { totp_secret: secret, totp_last_step: last = 0, recovery_codes: left = [] } = account;
        if (secret === undefined) throw new AppError("otp_invalid");
        const step = stepOf(secret, code, clock.now());
        // A code that was seen over somebody's shoulder is of no use any more.
        if (step !== undefined && step > last) return { totp_last_step: step };
        const digest = recoveryDigest(code);
        if (!left.includes(digest)) throw new AppError("otp_invalid");
        return { recovery_codes: left.filter((one) => one !== digest) };
      });
    },
    async enable(user, secret, code) {
      if (!/^[A-Z2-7]{32}$/.test(secret)) throw new AppError("invalid_request", { param: "secret" });
      const codes = Array.from({ length: recoveryCodes }, newRecoveryCode);
      await users.update(user, (account) => {
        if (hasSecondFactor(account)) throw new AppError("conflict", { message: "There is a second factor already." });
        const step = stepOf(secret, code, clock.now());
        if (step === undefined) throw new AppError("otp_invalid");
        return { totp_secret: secret, totp_last_step: step, recovery_codes: codes.map(recoveryDigest) };
      });
      return codes;
    },
    async remove(user) {
      await users.update(user, { totp_secret: null, totp_last_step: null, recovery_codes: null });
    },
  };
}

export function hasSecondFactor(account: Pick<Account, "totp_secret">): boolean {
  return account.totp_secret !== undefined;
}

/** A new secret, 160 random bits in base32, and the address by which authenticators take it over. */
export function newTotpSecret(user: string, title: string): { readonly secret: string; readonly uri: string } {
  const secret = toBase32(randomBytes(20));
  const label = `${encodeURIComponent(title)}:${encodeURIComponent(user)}`;
  return { secret, uri: `otpauth://totp/${label}?secret=${secret}&issuer=${encodeURIComponent(title)}` };
}

/** The code of a step, by HMAC-SHA1, as all authenticators have it. */
export function totpCode(secret: string, step: number): string {
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(step));
  const mac = createHmac("sha1", fromBase32(secret)).update(counter).digest();
  const offset = mac.readUInt8(mac.length - 1) & 15;
  return String((mac.readUInt32BE(offset) & 0x7fffffff) % 10 ** digits).padStart(digits, "0");
}

/** The latest step near a time whose code this is; undefined: none. @param now ms since the epoch */
function stepOf(secret: string, code: string, now: number): number | undefined {
  const typed = Buffer.from(code.replace(/\s/g, ""));
  if (typed.length !== digits) return undefined;
  const current = Math.floor(now / 1000 / stepSeconds);
  for (let step = current + window; step >= current - window; step--)
    if (timingSafeEqual(typed, Buffer.from(totpCode(secret, step)))) return step;
  return undefined;
}

/** 80 random bits, in four groups of four. */
function newRecoveryCode(): string {
  const text = toBase32(randomBytes(10)).toLowerCase();
  return text.match(/.{4}/g)?.join("-") ?? text;
}

/** SHA-256 without a salt is enough: random bits can't be guessed. */
function recoveryDigest(code: string): string {
  return createHash("sha256")
    .update(code.toLowerCase().replace(/[^a-z2-7]/g, ""))
    .digest("hex");
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/** Base32 of RFC 4648, for whole groups of 5 bytes. */
function toBase32(bytes: Uint8Array): string {
  let text = "";
  let rest = 0;
  let bits = 0;
  for (const byte of bytes) {
    rest = ((rest << 8) | byte) & 0xfff;
    for (bits += 8; bits >= 5; bits -= 5) text += alphabet[(rest >> (bits - 5)) & 31] ?? "";
  }
  return text;
}

function fromBase32(text: string): Buffer {
  const bytes: number[] = [];
  let rest = 0;
  let bits = 0;
  for (const letter of text) {
    rest = ((rest << 5) | alphabet.indexOf(letter)) & 0xfff;
    bits += 5;
    if (bits < 8) continue;
    bits -= 8;
    bytes.push((rest >> bits) & 255);
  }
  return Buffer.from(bytes);
}
