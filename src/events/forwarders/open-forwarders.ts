import { join } from "node:path";
import type { Config } from "../../config/schema.ts";
import type { Clock } from "../../lib/clock.ts";
import { createAllowList } from "../../lib/globs.ts";
import type { Log } from "../../lib/log.ts";
import { parseRedisUrl, type RedisTarget } from "../../lib/redis/redis-url.ts";
import type { Sink } from "../bus.ts";
import type { EventType } from "../catalogue.ts";
import type { Envelopes } from "../envelope.ts";
import { openSpool, type Spool } from "../spool/spool.ts";
import { createForwarder, type EventTarget, type Forwarder, type ForwarderStatus } from "./forwarder.ts";
import type { KafkaTopicOptions } from "./kafka-topic.ts";
import { createLossReport } from "./loss-report.ts";

/** What carries events to Redis and Kafka. */
export interface Forwarding {
  /** Undefined if nothing is configured: then there is no spool, and events cost nothing. */
  readonly sink: Sink | undefined;
  /** What is known of each; empty if nothing is configured. */
  forwarders(): readonly ForwarderStatus[];
  /** Bytes of the spool. */
  spoolBytes(): number;
  /** Sends what is left for some seconds. What is not sent by then is sent after the next start. */
  close(): Promise<void>;
}

export interface ForwardingOptions {
  readonly config: Pick<Config, "events">;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly logsDir: string;
  readonly envelopes: Envelopes;
  readonly clock: Clock;
  readonly log: Log;
}

/** What is known of a target before it is opened. */
interface Wanted {
  readonly name: string;
  readonly open: (onTrimmed: (count: number) => void) => EventTarget;
}

/** How long to send what is left when the proxy stops, in ms. */
const lastEventsMs = 5000;

/**
 * Opens the spool and a forwarder for each target of [events].
 *
 * @throws Error that names the variable whose address or login is missing or malformed; Node's errors
 */
export async function openForwarders(options: ForwardingOptions): Promise<Forwarding> {
  const { config, logsDir, envelopes, clock, log } = options;
  const wanted = await wantedTargets(options);
  if (wanted.length === 0) {
    return { sink: undefined, forwarders: () => [], spoolBytes: () => 0, close: () => Promise.resolve() };
  }
  const { max_bytes: maxBytes, segment_bytes: segmentBytes, types } = config.events.spool;
  const losses = createLossReport(log);
  const spool = await openSpool({
    folder: join(logsDir, "spool"),
    maxBytes,
    segmentBytes,
    clock,
    log,
    onLoss: losses.add,
    readers: wanted.map(({ name }) => name),
  });
  const forwarders = wanted.map((one) => forward(one, spool, { clock, log }));
  return {
    sink: createSpoolSink(spool, types, envelopes),
    forwarders: () => forwarders.map((forwarder) => forwarder.status()),
    spoolBytes: () => spool.size().bytes,
    async close() {
      await Promise.all(forwarders.map((forwarder) => forwarder.close(lastEventsMs)));
      await spool.close();
      losses.close();
    },
  };
}

function forward({ name, open }: Wanted, spool: Spool, common: { clock: Clock; log: Log }): Forwarder {
  const reader = spool.reader(name);
  const target = open((trimmed) => {
    reader.lose("trimmed", trimmed);
  });
  return createForwarder({ ...common, name, reader, target, random: Math.random });
}

/** Writes the events of the chosen types. What says that events are lost would be lost next, and cause the next one. */
function createSpoolSink(spool: Spool, types: readonly string[], envelopes: Envelopes): Sink {
  const matches = createAllowList(types);
  const chosen = new Map<EventType, boolean>();
  return (event) => {
    let isChosen = chosen.get(event.type);
    if (isChosen === undefined) {
      isChosen = event.type !== "events.lost" && matches(event.type);
      chosen.set(event.type, isChosen);
    }
    if (isChosen) spool.append(envelopes.textOf(event));
  };
}

async function wantedTargets({ config, env }: Pick<ForwardingOptions, "config" | "env">): Promise<readonly Wanted[]> {
  const { redis, kafka } = config.events;
  const wanted: Wanted[] = [];
  if (redis.stream !== undefined) {
    const { stream, max_length: maxLength, trim } = redis;
    const target = redisTarget(redis.url_env, env);
    const { createRedisStream } = await import("./redis-stream.ts");
    wanted.push({
      name: "redis",
      open: (onTrimmed) => createRedisStream({ target, stream, maxLength, trim, onTrimmed }),
    });
  }
  if (kafka.topic !== undefined) {
    const settings = kafkaSettings({ ...kafka, topic: kafka.topic }, env);
    // Only here, as the one for Redis: the client's 175 modules take a quarter of the time in which a process starts.
    const { createKafkaTopic } = await import("./kafka-topic.ts");
    wanted.push({ name: "kafka", open: () => createKafkaTopic(settings) });
  }
  return wanted;
}

/** @throws Error that names the variable whose address is missing or malformed */
export function redisTarget(variable: string, env: ForwardingOptions["env"]): RedisTarget {
  const url = env[variable] ?? "";
  try {
    return parseRedisUrl(url);
  } catch (cause) {
    // The address itself is not shown: it may hold a password.
    const why = cause instanceof Error ? cause.message : String(cause);
    const got = url === "" ? ", got nothing, but events.redis.stream is set" : "";
    throw new Error(`environment ${variable}: ${why}${got}`, { cause });
  }
}

const mechanisms = { plain: "PLAIN", "scram-sha-256": "SCRAM-SHA-256", "scram-sha-512": "SCRAM-SHA-512" } as const;

/** @throws Error that names the variable whose address or login is missing or malformed */
export function kafkaSettings(
  kafka: Config["events"]["kafka"] & { readonly topic: string },
  env: ForwardingOptions["env"],
): KafkaTopicOptions {
  const { topic, compression, tls, sasl, create_partitions: partitions, create_replicas: replicas } = kafka;
  const need = (variable: string, what: string, why: string): string => {
    const value = env[variable] ?? "";
    if (value === "") throw new Error(`environment ${variable}: expected ${what}, got nothing, but ${why} is set`);
    return value;
  };
  const why = "events.kafka.sasl";
  return {
    topic,
    compression,
    tls,
    brokers: parseBrokers(need("KAFKA_BROKERS", brokersForm, "events.kafka.topic")),
    create: partitions === undefined ? undefined : { partitions, replicas },
    login:
      sasl === "none"
        ? undefined
        : {
            mechanism: mechanisms[sasl],
            username: need(kafka.username_env, "a user", why),
            password: need(kafka.password_env, "a password", why),
          },
  };
}

const brokersForm = "HOST:PORT, or several separated by commas";

function parseBrokers(text: string): readonly string[] {
  const brokers = text.split(",").map((one) => one.trim());
  for (const [index, broker] of brokers.entries()) {
    const [host, port, ...more] = broker.split(":");
    const isPort = port === undefined || (/^\d{1,5}$/.test(port) && Number(port) >= 1 && Number(port) <= 65_535);
    if (host === undefined || !/^[\w.-]{1,253}$/.test(host) || !isPort || more.length > 0) {
      const got = JSON.stringify(broker.slice(0, 100));
      throw new Error(`environment KAFKA_BROKERS: expected ${brokersForm}, got ${got} as number ${index + 1}`);
    }
  }
  return brokers;
}
