import { createHmac } from "node:crypto";

/**
 * The value of X-Signature: `t=UNIX,v1=HEX`, where HEX is the HMAC-SHA256 of `UNIX.BODY`. The time is signed too, so
 * that a receiver can refuse what is old and nobody can send it again later.
 *
 * @param atMs ms since the epoch
 */
export function webhookSignature(secret: string, body: string, atMs: number): string {
  const unix = Math.floor(atMs / 1000);
  return `t=${unix},v1=${createHmac("sha256", secret).update(`${unix}.${body}`).digest("hex")}`;
}
