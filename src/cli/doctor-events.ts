import { connect } from "node:net";
import type { LoadedConfig } from "../config/load.ts";
import type { KafkaProblem } from "../events/forwarders/kafka-topic.ts";
import { kafkaSettings, redisTarget } from "../events/forwarders/open-forwarders.ts";
import type { RedisStreamProblem } from "../events/forwarders/redis-stream.ts";
import { describeTarget } from "../lib/redis/redis-url.ts";
import { failureReason } from "../providers/read-text.ts";
import type { CommandIo } from "./this-process.ts";

/** What a check has found. */
export interface Finding {
  readonly level: "ok" | "warn" | "FAIL";
  readonly what: string;
  readonly found: string;
  /** What to do; absent if there is nothing to do. */
  readonly fix?: string;
}

export interface DoctorCall {
  readonly loaded: LoadedConfig;
  readonly env: CommandIo["env"];
}

/** ms that one request or connection may take. */
export const timeoutMs = 5000;

/** Checks what events are sent to: the Redis Stream and the Kafka topic. */
export async function checkEventSinks(call: DoctorCall): Promise<readonly Finding[]> {
  return [...(await checkStream(call)), ...(await checkKafka(call))];
}

/** Whether events can be added to the stream. */
async function checkStream({ loaded: { config }, env }: DoctorCall): Promise<readonly Finding[]> {
  const { stream, url_env: variable } = config.events.redis;
  if (stream === undefined) return [];
  const what = `Redis Stream ${stream}`;
  try {
    const target = redisTarget(variable, env);
    const { checkRedisStream } = await import("../events/forwarders/redis-stream.ts");
    const problem = await checkRedisStream({ target, stream, timeoutMs });
    if (problem !== null)
      return [{ level: "FAIL", what, found: problem.reason, fix: streamFix(problem.kind, variable) }];
    return [{ level: "ok", what, found: `${describeTarget(target)} answers, and events can be added to it` }];
  } catch (error) {
    return [{ level: "FAIL", what, found: messageOf(error), fix: setVariable }];
  }
}

function streamFix(kind: RedisStreamProblem["kind"], variable: string): string {
  if (kind === "login") return `check the user and the password in ${variable}`;
  if (kind === "tls")
    return `check whether ${variable} should begin with redis:// or rediss:// (TLS), and name the server's CA by NODE_EXTRA_CA_CERTS=FILE if it is your own`;
  if (kind === "rights") return "give that user the rights that docs/events-out.md lists";
  if (kind === "key") return "name another key in events.redis.stream, or remove that one";
  return `check ${variable}, the firewall, and whether that port wants TLS (rediss://)`;
}

const setVariable = "set that variable for the server, and for this command";

/** Whether events can be sent to the topic; without one, whether the brokers accept connections. */
async function checkKafka({ loaded: { config }, env }: DoctorCall): Promise<readonly Finding[]> {
  const { kafka } = config.events;
  const { topic } = kafka;
  if (topic === undefined) return checkBrokers(env);
  const what = `Kafka topic ${topic}`;
  try {
    const { checkKafkaTopic } = await import("../events/forwarders/kafka-topic.ts");
    const problem = await checkKafkaTopic({ ...kafkaSettings({ ...kafka, topic }, env), timeoutMs });
    if (problem === null) return [{ level: "ok", what, found: "the brokers answer, and events can be sent to it" }];
    return [{ level: "FAIL", what, found: problem.reason, fix: kafkaFixes[problem.kind] }];
  } catch (error) {
    return [{ level: "FAIL", what, found: messageOf(error), fix: setVariable }];
  }
}

const kafkaFixes: Readonly<Record<KafkaProblem["kind"], string>> = {
  login:
    "check KAFKA_USERNAME, KAFKA_PASSWORD and events.kafka.sasl (plain, scram-sha-256, scram-sha-512) against the broker",
  tls: "check events.kafka.tls, and name the brokers' CA by NODE_EXTRA_CA_CERTS=FILE if it is your own",
  topic: "create the topic, or set events.kafka.create_partitions",
  unreachable:
    "check KAFKA_BROKERS (HOST:PORT,HOST:PORT), the firewall, and whether that port wants events.kafka.tls or events.kafka.sasl",
};

function checkBrokers(env: DoctorCall["env"]): Promise<readonly Finding[]> {
  const brokers = (env.KAFKA_BROKERS ?? "").split(",").map((broker) => broker.trim());
  return Promise.all(
    brokers
      .filter((broker) => broker !== "")
      .map(async (broker): Promise<Finding> => {
        const what = `Kafka ${broker}`;
        const problem = await connectProblem(broker);
        if (problem === null) return { level: "ok", what, found: "it accepts connections" };
        return {
          level: "FAIL",
          what,
          found: problem,
          fix: "check KAFKA_BROKERS (HOST:PORT,HOST:PORT) and the firewall",
        };
      }),
  );
}

/** Null if it connects. */
function connectProblem(broker: string): Promise<string | null> {
  const at = broker.lastIndexOf(":");
  const port = Number(broker.slice(at + 1));
  if (at < 1 || !Number.isInteger(port) || port < 1 || port > 65_535) return Promise.resolve("expected HOST:PORT");
  return new Promise((settle) => {
    const socket = connect({ host: broker.slice(0, at).replace(/^\[|\]$/g, ""), port, timeout: timeoutMs });
    const done = (problem: string | null): void => {
      socket.destroy();
      settle(problem);
    };
    socket.once("connect", () => {
      done(null);
    });
    socket.once("timeout", () => {
      done("no connection in time");
    });
    socket.once("error", (error) => {
      done(failureReason(error, timeoutMs));
    });
  });
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
