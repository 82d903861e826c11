import { randomUUID } from "node:crypto";
import { type Redis, replyNumber } from "../../lib/redis/redis.ts";
import { maxSkewSeconds } from "../keys/request-signature.ts";
import type { Nonces } from "../nonces.ts";

/** Nonces kept of one key. Beyond it signatures as old as the oldest are refused: replay is never possible. */
const maxNonces = 10_000;
/** How far from Redis's time a timestamp may be, in s: both the client's clock and that of a process may be wrong. */
const keepSeconds = 2 * maxSkewSeconds + 1;

/**
 * Nonces over Redis, by Redis's time. Where it has lost them, requests signed before that moment are refused.
 *
 * @param now ms since the epoch instead of Redis's time; for tests
 */
export async function openRedisNonces(redis: Redis, now?: () => number): Promise<Nonces> {
  const sinceOf = (tag: string): string => redis.keyIn(tag, "noncesince");
  await Promise.all(redis.tags.map((tag) => redis.call("nonce_open", [sinceOf(tag)], [now?.() ?? ""])));
  return {
    async use(keyId, nonce, timestamp) {
      const tag = redis.tagOf(keyId);
      const own = ["nonces", "noncefloor"].map((kind) => redis.keyIn(tag, kind, keyId)) as [string, string];
      const keys = [...own, sinceOf(tag), redis.keyIn(tag, "nonceuse", randomUUID())] as const;
      const args = [nonce, timestamp, maxNonces, keepSeconds, now?.() ?? ""];
      return replyNumber(await redis.call("nonce_use", keys, args)) === 1;
    },
  };
}
