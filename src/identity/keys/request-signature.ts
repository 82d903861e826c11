import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { AppError } from "../../errors.ts";
import type { Clock } from "../../lib/clock.ts";
import { plainTarget } from "../../lib/request-target.ts";
import type { Nonces } from "../nonces.ts";

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
export const maxSkewSeconds = 300;
const timestampShape = /^\d{1,12}$/;
const nonceShape = /^[A-Za-z0-9._-]{16,128}$/;
const signatureShape = /^[0-9a-f]{64}$/i;

/**
 * Creates the check of signed requests.
 *
 * @returns a function that throws AppError `signature_invalid`, whose message names the invalid part
 */
export function createSignatureCheck(options: {
  readonly nonces: Nonces;
  readonly clock: Clock;
}): (keyId: string, secret: string, request: SignedRequest) => Promise<void> {
  const { nonces, clock } = options;

  return async (keyId, secret, request) => {
    const { timestamp, nonce, signature } = request;
    if (!timestampShape.test(timestamp)) throw invalid("X-Signature-Timestamp must be seconds since 1970.");
    if (!nonceShape.test(nonce)) throw invalid("X-Signature-Nonce must be 16 to 128 letters, digits, dots or dashes.");
    if (!signatureShape.test(signature)) throw invalid("X-Signature must be an HMAC-SHA256 in hex.");
    const skew = Number(timestamp) - Math.floor(clock.now() / 1000);
    if (Math.abs(skew) > maxSkewSeconds) {
      throw invalid(`X-Signature-Timestamp is more than ${maxSkewSeconds} s from now.`);
    }
    const plain = plainTarget(request.target);
    const spellings = plain === request.target ? [plain] : [request.target, plain];
    if (!spellings.some((target) => isSigned({ ...request, target }, secret))) {
      throw invalid("X-Signature does not match.");
    }
    // Last: only the owner of the secret can fill the memory.
    if (!(await nonces.use(keyId, nonce, Number(timestamp)))) {
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
