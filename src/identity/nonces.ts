import type { Awaitable } from "../lib/awaitable.ts";

/** Remembers the nonces of signed requests, so that none is accepted twice. */
export interface Nonces {
  /**
   * Records a nonce.
   *
   * @param keyId the API key; each has its own nonces
   * @param timestamp s since the epoch, from the request; the caller has checked that it is near the current time
   * @returns false if the nonce was used before, or if that is no longer known
   */
  use(keyId: string, nonce: string, timestamp: number): Awaitable<boolean>;
}
