import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { AppError } from "../../errors.ts";
import type { Clock } from "../../lib/clock.ts";
import { plainTarget } from "../../lib/request-target.ts";

/** A request whose signature is to be checked. */
export interface SignedRequest {
  /** In upper case. */
  readonly method: string;
  /** The path with its query, as in the request line. It may be signed without the redundant slashes. */
  readonly target: string;
  /** Empty if there is none. */
  readonly body: Uint8Array;
  /** X-Signature-Timestamp: s since the epoch. */
  readonly timestamp: string;
  /** X-Signature-Nonce. */
  readonly nonce: string;
  /** X-Signature: the HMAC in hex. */
  readonly signature: string;
}

/** The maximum difference between the client's clock and ours, in s. */
const maxSkew = 300;
const timestampShape = /^\d{1,12}$/;
const nonceShape = /^[A-Za-z0-9._-]{16,128}$/;
const signatureShape = /^[0-9a-f]{64}$/i;

/**
 * Creates the check of signed requests. It remembers nonces by key, and refuses requests signed before it was created:
 * the nonces seen by the previous process are unknown. If the clock is set back, times recur; those in which something
 * was signed are then refused, all others are accepted.
 *
 * @returns a function that throws AppError `signature_invalid`, whose message names the invalid part
 */
export function createSignatureCheck(clock: Clock): (keyId: string, secret: string, request: SignedRequest) => void {
  const seconds = (): number => Math.floor(clock.now() / 1000);
  let since = seconds();
  const noncesOf = new Map<string, Nonces>();
  /** Times of keys that have not been used recently. */
  const forgotten = createForgottenTimes();

  function memoryOf(keyId: string, now: number): Nonces {
    const known = noncesOf.get(keyId);
    if (known !== undefined) return known;
    // Each new key removes those that have not been used recently.
    for (const [id, nonces] of noncesOf) {
      if (!nonces.isIdle(now)) continue;
      forgotten.addAll(nonces.forgotten);
      noncesOf.delete(id);
    }
    const nonces = createNonces(2 * maxSkew + 1);
    noncesOf.set(keyId, nonces);
    return nonces;
  }

  return (keyId, secret, request) => {
    const { timestamp, nonce, signature } = request;
    if (!timestampShape.test(timestamp)) throw invalid("X-Signature-Timestamp must be seconds since 1970.");
    if (!nonceShape.test(nonce)) throw invalid("X-Signature-Nonce must be 16 to 128 letters, digits, dots or dashes.");
    if (!signatureShape.test(signature)) throw invalid("X-Signature must be an HMAC-SHA256 in hex.");
    const now = seconds();
    const skew = Number(timestamp) - now;
    if (Math.abs(skew) > maxSkew) throw invalid(`X-Signature-Timestamp is more than ${maxSkew} s from now.`);
    const plain = plainTarget(request.target);
    const spellings = plain === request.target ? [plain] : [request.target, plain];
    if (!spellings.some((target) => isSigned({ ...request, target }, secret))) {
      throw invalid("X-Signature does not match.");
    }
    // The clock was ahead when the proxy was started; the previous process may have accepted signatures up to now.
    if (now < since - maxSkew) since = now;
    const isKnown = Number(timestamp) >= since && !forgotten.has(Number(timestamp));
    // Last: only the owner of the secret can fill the memory.
    if (!isKnown || !memoryOf(keyId, now).use(nonce, Number(timestamp), now)) {
      throw invalid("X-Signature-Nonce was used before, or the signature is older than the proxy's memory.");
    }
  };
}

function isSigned(request: SignedRequest, secret: string): boolean {
  const expected = createHmac("sha256", secret).update(textToSign(request)).digest();
  return timingSafeEqual(Buffer.from(request.signature, "hex"), expected);
}

/** The text to sign: five lines, joined by line feeds. */
function textToSign({ method, target, timestamp, nonce, body }: SignedRequest): string {
  const bodyHash = createHash("sha256").update(body).digest("hex");
  return [method, target, timestamp, nonce, bodyHash].join("\n");
}

function invalid(message: string): AppError {
  return new AppError("signature_invalid", { message });
}

/** Timestamps of signatures, in s since the epoch, whose nonces have been forgotten. */
interface ForgottenTimes {
  add(timestamp: number): void;
  has(timestamp: number): boolean;
  /** Adds all times of another set. */
  addAll(others: ForgottenTimes): void;
  /** Each covers times that are close together. */
  readonly ranges: readonly TimeRange[];
}

interface TimeRange {
  readonly from: number;
  readonly to: number;
}

/** Times no further apart than this form one range, in s. */
const maxGap = 600;
const maxRanges = 32;

/**
 * Creates an empty set. It keeps ranges rather than a single bound: if the clock was ahead for a while, some times are
 * far in the future, and today's must not count as forgotten with them.
 */
function createForgottenTimes(): ForgottenTimes {
  let ranges: readonly TimeRange[] = [];

  function addRange(range: TimeRange): void {
    const isNear = ({ from, to }: TimeRange) => range.from <= to + maxGap && range.to >= from - maxGap;
    const others = ranges.filter((one) => !isNear(one));
    ranges = [...others, spanOf([...ranges.filter(isNear), range])];
    // Forgetting too much refuses valid requests; forgetting too little would allow a replay.
    if (ranges.length > maxRanges) ranges = [spanOf(ranges.slice(0, 2)), ...ranges.slice(2)];
  }

  return {
    add(timestamp) {
      if (!this.has(timestamp)) addRange({ from: timestamp, to: timestamp });
    },
    has: (timestamp) => ranges.some(({ from, to }) => timestamp >= from && timestamp <= to),
    addAll(others) {
      for (const range of others.ranges) addRange(range);
    },
    get ranges() {
      return ranges;
    },
  };
}

function spanOf(ranges: readonly TimeRange[]): TimeRange {
  return {
    from: Math.min(...ranges.map(({ from }) => from)),
    to: Math.max(...ranges.map(({ to }) => to)),
  };
}

/** Remembers the nonces of one key while their timestamps are valid, up to a bound. */
export interface Nonces {
  /**
   * Records a nonce.
   *
   * @param timestamp s since the epoch, from the request
   * @param now s since the epoch
   * @returns false if the nonce was used before, or if that is no longer known
   */
  use(nonce: string, timestamp: number, now: number): boolean;
  /** Whether it remembers nothing any more except `forgotten`. */
  isIdle(now: number): boolean;
  readonly forgotten: ForgottenTimes;
}

/**
 * Creates the memory. Beyond its bound it forgets the oldest nonces and refuses all timestamps between the first and
 * the last of these: a heavily used key gets a narrower window, but replay is never possible.
 *
 * @param keepSeconds how long after its use a nonce can still come in again with a valid timestamp
 */
export function createNonces(keepSeconds: number, max = 10_000): Nonces {
  /** In order of use. */
  const seen = new Map<string, { readonly timestamp: number; readonly usedAt: number }>();
  const forgotten = createForgottenTimes();

  function forget(now: number): void {
    for (const [nonce, { timestamp, usedAt }] of seen) {
      // A use in the future was recorded before the clock was set back.
      if (seen.size < max && Math.abs(now - usedAt) <= keepSeconds) return;
      seen.delete(nonce);
      forgotten.add(timestamp);
    }
  }

  return {
    use(nonce, timestamp, now) {
      forget(now);
      if (seen.has(nonce) || forgotten.has(timestamp)) return false;
      seen.set(nonce, { timestamp, usedAt: now });
      return true;
    },
    isIdle(now) {
      forget(now);
      return seen.size === 0;
    },
    forgotten,
  };
}
