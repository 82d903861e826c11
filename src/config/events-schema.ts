import { z } from "zod";
import { payloads } from "../events/payloads.ts";
import { globMatcher } from "../lib/globs.ts";

const count = (min: number, max: number) => z.int().min(min).max(max);

const variable = z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, "expected the name of an environment variable");

/** A glob of event types. */
const eventTypes = z
  .string()
  .max(64)
  .refine(
    (glob) => Object.keys(payloads).some(globMatcher(glob)),
    `expected * or types of events, with * for any characters: ${Object.keys(payloads).join(", ")}`,
  );

/** [events.spool]: events on their way to Redis and Kafka. */
const spoolSection = z.strictObject({
  max_bytes: count(1 << 20, 2 ** 40)
    .default(1 << 30)
    .describe(
      "Most that LOGS/spool may take. Beyond it the oldest events are dropped, and counted in events_lost_total for each sink that has not had them.",
    ),
  segment_bytes: count(64 << 10, 1 << 30)
    .default(16 << 20)
    .describe("Size at which the spool starts a new file; at most a quarter of max_bytes is used."),
  types: z
    .array(eventTypes)
    .default(["*"])
    .describe('Types of the events that are forwarded; `*` stands for any characters, as in "chat.*".'),
});

/** [events.redis]: to a Redis Stream. */
const redisSection = z.strictObject({
  stream: z
    .string()
    .min(1)
    .max(200)
    .optional()
    .describe("Key of the Redis Stream that events are added to. Absent: none is."),
  url_env: variable.default("REDIS_URL").describe("Environment variable with the address of that Redis."),
  max_length: count(100, 1_000_000_000)
    .default(100_000)
    .describe("Most events in the stream; one batch of 200 may be above."),
  trim: z
    .enum(["acknowledged", "length"])
    .default("acknowledged")
    .describe(
      "What is removed from the stream: `acknowledged` what all of its consumer groups have acknowledged, and a full stream gets nothing until they have; `length` the oldest beyond max_length, counted as lost if a group had not acknowledged them.",
    ),
});

/** [events.kafka]: to a Kafka topic. The brokers are in KAFKA_BROKERS. */
const kafkaSection = z.strictObject({
  topic: z
    .string()
    .regex(/^[a-zA-Z0-9._-]{1,249}$/, "expected 1 to 249 letters, digits, dots, - and _")
    .optional()
    .describe("Kafka topic that events are sent to, at the brokers of KAFKA_BROKERS. Absent: none are."),
  create_partitions: count(1, 10_000)
    .optional()
    .describe("Creates the topic with so many partitions if it is missing. Absent: it must exist."),
  create_replicas: count(1, 100).default(1).describe("Replicas of a topic that is created."),
  compression: z.enum(["none", "gzip", "snappy", "lz4"]).default("lz4").describe("How batches are compressed."),
  tls: z.boolean().default(false).describe("Whether brokers are reached by TLS. NODE_EXTRA_CA_CERTS names an own CA."),
  sasl: z
    .enum(["none", "plain", "scram-sha-256", "scram-sha-512"])
    .default("none")
    .describe("How the proxy logs in to the brokers."),
  username_env: variable.default("KAFKA_USERNAME").describe("Environment variable with the user for that."),
  password_env: variable.default("KAFKA_PASSWORD").describe("Environment variable with the password."),
});

/** [events]: who may follow them, and where they go. */
export const eventsSection = z.strictObject({
  ring_size: count(0, 1_000_000)
    .default(10_000)
    .describe(
      "Latest events kept in memory while somebody reads /admin/events, and for ten minutes after, so that readers can resume; at most 2 KB each on average.",
    ),
  max_streams: count(0, 10_000).default(50).describe("Readers of /admin/events at once; more get 503."),
  spool: spoolSection.prefault({}),
  redis: redisSection.prefault({}),
  kafka: kafkaSection.prefault({}),
});
