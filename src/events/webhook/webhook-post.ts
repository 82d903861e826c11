import { createHmac } from "node:crypto";
import { isIP } from "node:net";
import { Agent, request } from "undici";
import { AddressRefusedError, createCheckedLookup, isPublicAddress, type Resolve } from "../../lib/checked-lookup.ts";

interface PostResult {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}

/** Sends bodies to one URL. */
export interface WebhookPost {
  /**
   * Sends once. Returns the status, and the headers in which the receiver may ask for a pause. Follows no redirects, and
   * reads no more of the response than necessary.
   *
   * @throws AddressRefusedError if the URL leads into a private network; any error of undici; the signal's reason
   */
  send(body: string, headers: Readonly<Record<string, string>>, signal: AbortSignal): Promise<PostResult>;
  close(): Promise<void>;
}

export interface WebhookPostOptions {
  readonly url: string;
  /** Whether private addresses, this machine and plain http are allowed. */
  readonly allowPrivate: boolean;
  /** For tests of DNS. */
  readonly resolve?: Resolve | undefined;
}

/** Bytes of a response to read so that it ends properly; the connection of a longer one is cut. */
const maxResponseBytes = 16 << 10;

/** @throws Error for a URL that is not https if `allowPrivate` is false */
export function createWebhookPost({ url: text, allowPrivate, resolve }: WebhookPostOptions): WebhookPost {
  const url = new URL(text);
  if (url.protocol !== "https:" && !allowPrivate) throw new Error("a webhook has to be https");
  const isAllowed = (address: string): boolean => allowPrivate || isPublicAddress(address);
  // URL has normalized other notations of an address (2130706433, 0x7f.1).
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const agent = new Agent({
    connect: { lookup: createCheckedLookup(isAllowed, resolve), timeout: 0 },
    // The caller's signal is the timeout.
    headersTimeout: 0,
    bodyTimeout: 0,
  });

  return {
    async send(body, headers, signal) {
      if (isIP(host) !== 0 && !isAllowed(host)) throw new AddressRefusedError(host);
      // Uses a new connection, so that the address is resolved and checked each time.
      const response = await request(url, { dispatcher: agent, method: "POST", body, headers, signal, reset: true });
      await response.body.dump({ limit: maxResponseBytes, signal }).catch(() => undefined);
      return { status: response.statusCode, headers: response.headers };
    },
    close: () => agent.destroy(),
  };
}

/** A secret of Standard Webhooks has this before its Base64. */
const secretPrefix = "whsec_";
const base64 = /^[A-Za-z0-9+/]+={0,2}$/;

/** The bytes of a secret: those of its Base64 after `whsec_`, else its text; null if that is no Base64. */
export function secretBytes(secret: string): Buffer | null {
  if (!secret.startsWith(secretPrefix)) return Buffer.from(secret);
  const text = secret.slice(secretPrefix.length);
  return base64.test(text) ? Buffer.from(text, "base64") : null;
}

/**
 * The headers of Standard Webhooks (standardwebhooks.com): `v1,BASE64` is the HMAC-SHA256 of `ID.TIMESTAMP.BODY`.
 *
 * @param key from secretBytes
 * @param atMs ms since the epoch
 */
export function standardHeaders(key: Buffer, id: string, body: string, atMs: number): Readonly<Record<string, string>> {
  const unix = Math.floor(atMs / 1000);
  const signature = createHmac("sha256", key).update(`${id}.${unix}.${body}`).digest("base64");
  return { "webhook-id": id, "webhook-timestamp": String(unix), "webhook-signature": `v1,${signature}` };
}

/**
 * The value of X-Signature: `t=UNIX,v1=HEX`, where HEX is the HMAC-SHA256 of `UNIX.BODY`. The time is signed too, so
 * that a receiver can refuse old messages and prevent replays.
 *
 * @param atMs ms since the epoch
 */
export function webhookSignature(secret: string, body: string, atMs: number): string {
  const unix = Math.floor(atMs / 1000);
  return `t=${unix},v1=${createHmac("sha256", secret).update(`${unix}.${body}`).digest("hex")}`;
}
