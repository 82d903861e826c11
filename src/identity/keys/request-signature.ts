import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { AppError } from "../../errors.ts";
import type { Clock } from "../../lib/clock.ts";
import { plainTarget } from "../../lib/request-target.ts";

/** A request whose signature is to be checked. */
export interface SignedRequest {
  /** In capitals. */
  readonly method: string;
  /** The path with its query, as it stands in the request line. It may be signed without the slashes that are ignored. */
  readonly target: string;
  /** Empty where there is none. */
  readonly body: Uint8Array;
  /** X-Signature-Timestamp: s since the epoch. */
  readonly timestamp: string;
  /** X-Signature-Nonce. */
  readonly nonce: string;
  /** X-Signature: the HMAC in hex. */
  readonly signature: string;
}

/** How far the client's clock may be from ours, in s. */
const maxSkew = 300;
const timestampShape = /^\d{1,12}$/;
const nonceShape = /^[A-Za-z0-9._-]{16,128}$/;
const signatureShape = /^[0-9a-f]{64}$/i;

/**
 * Makes the check of signed requests. It remembers nonces by key, and refuses what was signed before it was made: what
 * the process before it has seen is not known. A clock that is set back has times come again; those in which something
 * was signed are refused then, all others are good.
 *
 * @returns a function that throws AppError `signature_invalid`, whose message says which part is at fault
 */
export function createSignatureCheck(clock: Clock): (keyId: string, secret: string, request: SignedRequest) => void {
  const seconds = (): number => Math.floor(clock.now() / 1000);
  let since = seconds();
  const noncesOf = new Map<string, Nonces>();
  /** Of keys that have not been used lately. */
  const forgotten = createForgottenTimes();

  function memoryOf(keyId: string, now: number): Nonces {
    const known = noncesOf.get(keyId);
    if (known !== undefined) return known;
    // With each new key those go that have not been used lately.
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
    // The clock was ahead when the proxy was started; the process before this one may have seen all until now.
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

/** What is signed: five lines, joined by line feeds. */
function textToSign({ method, target, timestamp, nonce, body }: SignedRequest): string {
  const bodyHash = createHash("sha256").update(body).digest("hex");
  return [method, target, timestamp, nonce, bodyHash].join("\n");
}

function invalid(message: string): AppError {
  return new AppError("signature_invalid", { message });
}

/** Timestamps of signatures, in s since the epoch, of which it is not known any more by which nonces they were used. */
interface ForgottenTimes {
  add(timestamp: number): void;
  has(timestamp: number): boolean;
  /** Takes in all times of another one. */
  addAll(others: ForgottenTimes): void;
  /** From the first to the last of times that lie close together. */
  readonly ranges: readonly TimeRange[];
}

interface TimeRange {
  readonly from: number;
  readonly to: number;
}

/** Times no further apart than this are one range, in s. */
const maxGap = 600;
const maxRanges = 32;

/**
 * Makes an empty set. It keeps ranges rather than a single bound: by a clock that was ahead for a while some times lie
 * far in the future, and those of today must not count as forgotten with them.
 */
function createForgottenTimes(): ForgottenTimes {
  let ranges: readonly TimeRange[] = [];

  function addRange(range: TimeRange): void {
    const isNear = ({ from, to }: TimeRange) => range.from <= to + maxGap && range.to >= from - maxGap;
    const others = ranges.filter((one) => !isNear(one));
    ranges = [...others, spanOf([...ranges.filter(isNear), range])];
    // Too much forgotten refuses honest requests; too little would let one in twice.
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

/** Remembers the nonces of one key while their timestamps are good, up to a bound. */
export interface Nonces {
  /**
   * Takes note of a nonce.
   *
   * @param timestamp s since the epoch, as the request has it
   * @param now s since the epoch
   * @returns false where the nonce was used before, or where that can't be known any more
   */
  use(nonce: string, timestamp: number, now: number): boolean;
  /** Whether there is nothing to remember any more but `forgotten`. */
  isIdle(now: number): boolean;
  readonly forgotten: ForgottenTimes;
}

/**
 * Makes the memory. Beyond its bound the oldest are forgotten, and with them all timestamps between the first and the
 * last of these are refused: so a key that is used very much gets a narrower window, and nobody gets a replay.
 *
 * @param keepSeconds how long after its use a nonce can still come in again with a good timestamp
 */
export function createNonces(keepSeconds: number, max = 10_000): Nonces {
  /** In order of use. */
  const seen = new Map<string, { readonly timestamp: number; readonly usedAt: number }>();
  const forgotten = createForgottenTimes();

  function forget(now: number): void {
    for (const [nonce, { timestamp, usedAt }] of seen) {
      // What was used in the future was used by a clock that has been set back.
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
