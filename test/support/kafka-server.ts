import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Admin, Consumer, MessagesStreamModes } from "@platformatic/kafka";
import { describe } from "vitest";
import { makeCertificate } from "./certificate.ts";
import { eventually } from "./eventually.ts";
import { freePort } from "./redis-server.ts";

/** The jars of Kafka: where KAFKA_LIBS says, or where scripts/fetch-kafka.sh puts them. */
const libs =
  process.env.KAFKA_LIBS ?? fileURLToPath(new URL("../../node_modules/.cache/kafka/4.1.2/libs", import.meta.url));
const isInstalled = existsSync(libs) && spawnSync("java", ["-version"]).status === 0;

/**
 * As describe; skipped where there is no Java or no Kafka (scripts/fetch-kafka.sh fetches it), except in CI, where that is
 * a failure.
 */
export const describeWithKafka = isInstalled || process.env.CI !== undefined ? describe : describe.skip;

/** A broker of its own process, which is its own controller. */
export interface KafkaServer {
  /** HOST:PORT. */
  readonly broker: string;
  /**
   * Another listener, with TLS and login: by PLAIN as alice, with the password "a secret"; by SCRAM-SHA-256 and
   * SCRAM-SHA-512 as bob, with the password "another secret".
   */
  readonly secured: string;
  /** The certificate of `secured`, a file. */
  readonly certificate: string;
  createTopic(topic: string, partitions: number): Promise<void>;
  /** Everything in a topic, partition by partition in the order of its log. */
  readTopic(topic: string): Promise<readonly KafkaRecord[]>;
  /** Stops it as a crash does. */
  kill(): Promise<void>;
  /** Starts it again on the same port, with its data. */
  restart(): Promise<void>;
  close(): Promise<void>;
}

const scrams = ["SCRAM-SHA-256", "SCRAM-SHA-512"];

/** How long a start may take, in ms, on a machine that is busy with other tests. */
export const startMs = 90_000;

interface KafkaRecord {
  readonly partition: number;
  readonly key: string | undefined;
  readonly value: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly timestamp: number;
}

/** Starts a broker on free ports of 127.0.0.1: within some three seconds. */
export async function startKafkaServer(extra: readonly string[] = []): Promise<KafkaServer> {
  const folder = mkdtempSync(join(tmpdir(), "kafka-"));
  const [port, controllerPort, securedPort] = [await freePort(), await freePort(), await freePort()];
  const secured = `127.0.0.1:${securedPort}`;
  const pem = makeCertificate(folder);
  const broker = `127.0.0.1:${port}`;
  const properties = join(folder, "server.properties");
  writeFileSync(
    properties,
    [
      "process.roles=broker,controller",
      "node.id=1",
      `controller.quorum.voters=1@127.0.0.1:${controllerPort}`,
      `listeners=PLAINTEXT://${broker},SECURED://${secured},CONTROLLER://127.0.0.1:${controllerPort}`,
      `advertised.listeners=PLAINTEXT://${broker},SECURED://${secured}`,
      "controller.listener.names=CONTROLLER",
      "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_SSL",
      `sasl.enabled.mechanisms=PLAIN,${scrams.join(",")}`,
      "ssl.keystore.type=PEM",
      `ssl.keystore.location=${pem.keyAndCertificate}`,
      "listener.name.secured.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required " +
        'user_alice="a secret";',
      ...scrams.map(
        (name) =>
          `listener.name.secured.${name.toLowerCase()}.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;`,
      ),
      `log.dirs=${join(folder, "data")}`,
      "auto.create.topics.enable=false",
      "offsets.topic.replication.factor=1",
      "offsets.topic.num.partitions=1",
      "transaction.state.log.replication.factor=1",
      "transaction.state.log.min.isr=1",
      "transaction.state.log.num.partitions=1",
      "group.initial.rebalance.delay.ms=0",
      // Otherwise a killed broker is waited for when it is back.
      "broker.session.timeout.ms=1500",
      "broker.heartbeat.interval.ms=300",
      ...extra,
    ].join("\n"),
  );
  const memory = ["-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
  const options = [...memory, "-cp", `${libs}/*`];
  // In one argument: an id may begin with "-".
  const clusterId = `--cluster-id=${randomBytes(16).toString("base64url")}`;
  const bob = scrams.flatMap((name) => ["--add-scram", `${name}=[name=bob,password=another secret]`]);
  execFileSync("java", [...options, "kafka.tools.StorageTool", "format", clusterId, "-c", properties, ...bob]);

  async function start(): Promise<ChildProcess> {
    const started = spawn("java", [...options, "kafka.Kafka", properties], { stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    for (const stream of [started.stdout, started.stderr]) {
      stream.on("data", (bytes: Buffer) => (output = (output + bytes.toString()).slice(-2000)));
    }
    process.once("exit", () => started.kill("SIGKILL"));
    const admin = new Admin({ clientId: "test", bootstrapBrokers: [broker], retries: 0, connectTimeout: 500 });
    try {
      await eventually(async () => {
        if (started.exitCode !== null) throw new Error(`Kafka has ended: ${output}`);
        await admin.metadata({ topics: [], forceUpdate: true });
      }, startMs);
    } finally {
      await admin.close();
    }
    return started;
  }

  let child = await start();
  async function kill(): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, "exit");
    child.kill("SIGKILL");
    await gone;
  }
  async function withAdmin<T>(action: (admin: Admin) => Promise<T>): Promise<T> {
    const admin = new Admin({ clientId: "test", bootstrapBrokers: [broker] });
    try {
      return await action(admin);
    } finally {
      await admin.close();
    }
  }
  return {
    broker,
    secured,
    certificate: pem.certificate,
    createTopic: (topic, partitions) =>
      withAdmin(async (admin) => {
        await admin.createTopics({ topics: [topic], partitions, replicas: 1 });
        // A topic is there a little later than the answer.
        await eventually(async () => {
          await admin.metadata({ topics: [topic], forceUpdate: true });
        });
      }),
    readTopic: (topic) => readTopic(broker, topic),
    kill,
    async restart() {
      await kill();
      child = await start();
    },
    async close() {
      await kill();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function readTopic(broker: string, topic: string): Promise<readonly KafkaRecord[]> {
  const text = (bytes?: Buffer): string => bytes?.toString() ?? "";
  const consumer = new Consumer({
    clientId: "test",
    groupId: `test-${randomBytes(4).toString("hex")}`,
    bootstrapBrokers: [broker],
    deserializers: { key: text, value: text, headerKey: text, headerValue: text },
    maxWaitTime: 50,
  });
  const records: KafkaRecord[] = [];
  try {
    const ends = await consumer.listOffsets({ topics: [topic] });
    const total = (ends.get(topic) ?? []).reduce((sum, offset) => sum + Number(offset), 0);
    if (total === 0) return [];
    const stream = await consumer.consume({ topics: [topic], mode: MessagesStreamModes.EARLIEST, autocommit: false });
    for await (const { partition, key, value, headers, timestamp } of stream) {
      records.push({
        partition,
        value,
        timestamp: Number(timestamp),
        key: key === "" ? undefined : key,
        headers: Object.fromEntries(headers),
      });
      if (records.length >= total) break;
    }
  } finally {
    await new Promise<void>((resolve) => {
      consumer.close(true, () => {
        resolve();
      });
    });
  }
  return records;
}
