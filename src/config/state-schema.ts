import { z } from "zod";

/**
 * [state]: where users, sessions, quotas and limits are kept. The address of Redis is in REDIS_URL: it may hold a
 * password.
 */
export const stateSection = z.strictObject({
  backend: z
    .enum(["files", "redis"])
    .default("files")
    .describe(
      "Where the state is kept: `files` for one process, `redis` for any number of processes over one Redis or Valkey, whose address is in REDIS_URL.",
    ),
  key_prefix: z
    .string()
    .regex(/^[a-z0-9][a-z0-9_-]{0,31}$/, "expected 1 to 32 characters: lower-case letters, digits, - and _")
    .default("llmproxy")
    .describe("The beginning of all keys in Redis. All processes that share a state have the same."),
  timeout_ms: z
    .int()
    .min(50)
    .max(30_000)
    .default(2000)
    .describe("How long an answer of Redis is waited for, repetitions included, before a request is refused."),
  lease_seconds: z
    .int()
    .min(5)
    .max(3600)
    .default(30)
    .describe("How long permits and reservations of a process that has died stay taken. Live ones renew theirs."),
  restore_wait_ms: z
    .int()
    .min(50)
    .max(60_000)
    .default(1500)
    .describe(
      "How long processes have to say what they remember where Redis has lost something, or is empty, before it is put back. A start over an empty Redis takes at least that.",
    ),
  when_away: z
    .enum(["refuse", "allowance"])
    .default("refuse")
    .describe(
      "While Redis does not answer: `refuse` whatever needs it, or serve from an `allowance`, a part of each user's limits that every process holds in advance.",
    ),
  allowance_share: z
    .number()
    .min(0.001)
    .max(0.25)
    .default(0.05)
    .describe(
      'Part of each quota limit that a process holds in advance for every user it serves, and at most a quarter of what is left. With `when_away = "allowance"`.',
    ),
  allowance_seconds: z
    .int()
    .min(5)
    .max(3600)
    .default(60)
    .describe("How long requests are served without Redis; then they are refused."),
  min_replicas: z
    .int()
    .min(0)
    .max(8)
    .default(0)
    .describe(
      "Replicas of Redis that must have a charge before it counts as made, with storage.durability `strict`. Needs min-replicas-to-write in Redis.",
    ),
});
