import {
  Admin,
  defaultPartitioner,
  GenericError,
  MultipleErrors,
  ProduceAcks,
  Producer,
  UserError,
} from "@platformatic/kafka";
import type { Config } from "../../config/schema.ts";
import { cloudEventAttributes } from "../cloud-event.ts";
import type { Envelope } from "../envelope.ts";
import { deadlineOf, type EventTarget, RefusedError } from "./forwarder.ts";

export interface KafkaTopicOptions {
  /** HOST:PORT of some brokers. */
  readonly brokers: readonly string[];
  readonly topic: string;
  /** Creates the topic if it is missing; undefined: it must exist. */
  readonly create: { readonly partitions: number; readonly replicas: number } | undefined;
  readonly compression: Config["events"]["kafka"]["compression"];
  readonly tls: boolean;
  readonly login:
    | {
        readonly mechanism: "PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512";
        readonly username: string;
        readonly password: string;
      }
    | undefined;
  /** Default: 30 s. */
  readonly timeoutMs?: number;
}

type TextProducer = Producer<string, string, string, string>;

const maxBatch = 500;
/** Kafka's own codes. */
const topicExists = 36;
/** UNSUPPORTED_SASL_MECHANISM, ILLEGAL_SASL_STATE, SASL_AUTHENTICATION_FAILED. */
const loginCodes = [33, 34, 58];
/** MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE, INVALID_RECORD. */
const refusals = [10, 18, 87];

/**
 * Sends events to a Kafka topic: CloudEvents in binary mode, keyed by the user, to the partition that Java's client would
 * choose for this key. Acknowledged by all replicas that are in sync.
 *
 * The client loses events silently where sends of one idempotent producer overlap, so there is one at a time, and after
 * a failure a new producer.
 */
export function createKafkaTopic(options: KafkaTopicOptions): EventTarget {
  const { topic, create, timeoutMs = 30_000 } = options;
  const shared = connectionOf(options);
  let producer: TextProducer | undefined;
  /** Events without a user go to one partition after the other. */
  let turn = 0;
  let fail: (error: Error) => void = () => undefined;

  function drop(): void {
    const old = producer;
    producer = undefined;
    old?.close(true, () => undefined);
  }

  function createProducer(): TextProducer {
    const created: TextProducer = new Producer({
      ...shared,
      idempotent: true,
      acks: ProduceAcks.ALL,
      // Few, and more than 1: with 1 it would never stop.
      retries: 2,
      compression: options.compression,
      serializers: { key: toBytes, value: toBytes, headerKey: toBytes, headerValue: toBytes },
      partitioner: (message, key) => (key === undefined ? turn++ : defaultPartitioner(message, key)) & 0x7fff_ffff,
    });
    for (const event of brokerEvents) created.on(event, ignoreErrors);
    return created;
  }

  /** Ends with the deadline, and with `close`. A producer that has failed is not used again. */
  async function attempt<T>(action: (with_: TextProducer) => Promise<T>): Promise<T> {
    const current = (producer ??= createProducer());
    const closing = new Promise<never>((_resolve, reject) => {
      fail = reject;
    });
    try {
      const late = () => new Error("Kafka did not answer in time");
      return await deadlineOf(timeoutMs, Promise.race([action(current), closing]), late);
    } catch (error) {
      drop();
      if (refusals.some((code) => hasCode(error, code))) {
        throw new RefusedError("Kafka refuses the events as too large or invalid", { cause: error });
      }
      throw new Error(reasonOf(error), { cause: error });
    }
  }

  async function findTopic(with_: TextProducer): Promise<void> {
    try {
      await with_.metadata({ topics: [topic] });
    } catch (error) {
      if (!isUnknown(error, topic)) throw error;
      if (create === undefined) {
        throw new Error(`the topic ${topic} does not exist: create it, or set events.kafka.create_partitions`, {
          cause: error,
        });
      }
      await createTopic(create);
    }
  }

  async function createTopic({ partitions, replicas }: NonNullable<typeof create>): Promise<void> {
    const admin = new Admin({ ...shared, retries: 2 });
    try {
      await admin.createTopics({ topics: [topic], partitions, replicas });
    } catch (error) {
      // Another process was faster.
      if (!hasCode(error, topicExists)) throw error;
    } finally {
      await admin.close().catch(() => undefined);
    }
  }

  return {
    maxBatch,
    async connect() {
      if (producer === undefined) await attempt(findTopic);
    },
    async send(events) {
      const messages = events.map((event) => messageOf(topic, event));
      await attempt((with_) => with_.send({ messages }));
    },
    isConnected: () => producer?.isConnected() === true,
    close() {
      fail(new Error("the forwarder is closed"));
      drop();
      return Promise.resolve();
    },
  };
}

function connectionOf({ brokers, tls, login }: KafkaTopicOptions) {
  return {
    clientId: "deepseek-proxy",
    bootstrapBrokers: [...brokers],
    connectTimeout: 3000,
    requestTimeout: 10_000,
    timeout: 10_000,
    retryDelay: 200,
    ...(tls ? { tls: {} } : {}),
    ...(login === undefined ? {} : { sasl: login }),
  };
}

const brokerEvents = ["client:broker:connect", "client:broker:failed"] as const;

/** The pool listens for one error a connection; a second one, after a refused login, would end the process. */
function ignoreErrors({ connection }: { connection: { on(event: "error", listener: () => void): unknown } }): void {
  connection.on("error", () => undefined);
}

/** What stands in the way of sending events. */
export interface KafkaProblem {
  readonly kind: "login" | "tls" | "topic" | "unreachable";
  readonly reason: string;
}

/**
 * Asks the brokers for the topic, by TLS and login as the forwarder uses them. Changes nothing: a missing topic is null if
 * the forwarder would create it. Null: nothing stands in the way.
 */
export async function checkKafkaTopic(options: KafkaTopicOptions): Promise<KafkaProblem | null> {
  const { topic, create, timeoutMs = 10_000 } = options;
  const admin = new Admin({ ...connectionOf(options), retries: 0 });
  for (const event of brokerEvents) admin.on(event, ignoreErrors);
  try {
    const late = () => new Error("Kafka did not answer in time");
    await deadlineOf(timeoutMs, admin.metadata({ topics: [topic], forceUpdate: true }), late);
    return null;
  } catch (error) {
    if (isUnknown(error, topic)) {
      return create === undefined ? { kind: "topic", reason: `the topic ${topic} does not exist` } : null;
    }
    const reason = reasonOf(error);
    const isLogin = loginCodes.some((code) => hasCode(error, code)) || /sasl|authentication/i.test(reason);
    const isTls = /certificate|ssl|tls|self-signed/i.test(reason);
    return { kind: isLogin ? "login" : isTls ? "tls" : "unreachable", reason };
  } finally {
    await admin.close().catch(() => undefined);
  }
}

function messageOf(topic: string, event: Envelope) {
  const { datacontenttype = "", ...attributes } = cloudEventAttributes(event);
  const headers: Record<string, string> = { "content-type": datacontenttype };
  for (const [name, value] of Object.entries(attributes)) headers[`ce_${name}`] = value;
  return {
    topic,
    ...(event.user === null ? {} : { key: event.user }),
    value: JSON.stringify(event.data),
    headers,
    timestamp: BigInt(Date.parse(event.time)),
  };
}

function toBytes(text: string | undefined): Buffer | undefined {
  return text === undefined ? undefined : Buffer.from(text);
}

/** Whether Kafka's code is among the errors that the client has wrapped into this one. */
function hasCode(error: unknown, code: number): boolean {
  if (error instanceof MultipleErrors) return error.findBy("apiCode", code) !== null;
  return error instanceof GenericError && error.findBy("apiCode", code) !== null;
}

/** The client leaves Kafka's code out of this one. */
function isUnknown(error: unknown, topic: string): boolean {
  return error instanceof UserError && error.message === `Unknown topic ${topic}.`;
}

/** The client wraps what has happened several times over, so that a wrong password is "Connection failed" outside. */
function reasonOf(error: unknown): string {
  let reason = error;
  for (let depth = 0; depth < 8; depth++) {
    const inner: unknown = reason instanceof AggregateError ? reason.errors.at(-1) : causeOf(reason);
    if (!(inner instanceof Error)) break;
    reason = inner;
  }
  return reason instanceof Error ? reason.message : String(reason);
}

/** Of the client's own errors only. */
function causeOf(error: unknown): unknown {
  return error instanceof GenericError ? error.cause : undefined;
}
