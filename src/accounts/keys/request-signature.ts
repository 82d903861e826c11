import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { AppError } from "../../errors.ts";
import type { Clock } from "../../lib/clock.ts";
import { plainTarget } from "../../lib/request-target.ts";
import { createForgottenTimes, createNonces, type Nonces } from "./nonces.ts";

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
