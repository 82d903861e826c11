import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { runDoctorCli } from "../../src/cli/doctor-commands.ts";
import { runCli } from "../support/cli.ts";
import { describeWithKafka, type KafkaServer, startKafkaServer, startMs } from "../support/kafka-server.ts";
import { compiledServer } from "../support/server-process.ts";
import { tempDir } from "../support/temp-dir.ts";

describeWithKafka("npm run doctor, about Kafka", () => {
  let server: KafkaServer;
  beforeAll(async () => {
    server = await startKafkaServer();
    await server.createTopic("events", 1);
  }, startMs);
  afterAll(() => server.close());

  function folderWith(kafka: string): string {
    const folder = tempDir();
    writeFileSync(join(folder, "config.toml"), `[events.kafka]\n${kafka}\n`);
    return folder;
  }

  async function doctor(kafka: string, env: Record<string, string>): Promise<string> {
    return (await runCli(runDoctorCli, [], folderWith(kafka), "", env)).out;
  }

  /** In a process of its own, since Node reads NODE_EXTRA_CA_CERTS at its start. */
  function doctorApart(kafka: string, env: Readonly<Record<string, string>>): string {
    const folder = folderWith(kafka);
    const { stdout } = spawnSync(process.execPath, [join(compiledServer(), "cli", "main.js"), "doctor"], {
      cwd: folder,
      encoding: "utf8",
      env: { PATH: process.env.PATH, ...env },
    });
    expect(stdout).not.toContain("secret-of-alice");
    return stdout;
  }

  const tls = 'topic = "events"\ntls = true\nsasl = "plain"';
  const alice = { KAFKA_USERNAME: "alice", KAFKA_PASSWORD: "a secret" };

  test("a topic that is there, or may be created, is ok", async () => {
    const env = { KAFKA_BROKERS: server.broker };
    expect(await doctor('topic = "events"', env)).toMatch(/^ok {4}Kafka topic events: /m);
    expect(await doctor('topic = "missing"\ncreate_partitions = 1', env)).toMatch(/^ok {4}Kafka topic missing: /m);
    expect(await doctor('topic = "missing"', env)).toMatch(
      /^FAIL {2}Kafka topic missing: the topic missing does not exist\n +fix: create the topic/m,
    );
  });

  test("TLS and the login are used as the forwarder does", { timeout: startMs }, () => {
    const secured = { ...alice, KAFKA_BROKERS: server.secured, NODE_EXTRA_CA_CERTS: server.certificate };
    expect(doctorApart(tls, secured)).toMatch(/^ok {4}Kafka topic events: /m);
    expect(doctorApart(tls, { ...secured, KAFKA_PASSWORD: "secret-of-alice" })).toMatch(
      /^FAIL {2}Kafka topic events: .*\n +fix: check KAFKA_USERNAME, KAFKA_PASSWORD/m,
    );
  });

  test.each([
    ["a certificate that nobody has signed", tls, () => server.secured, /certificate.*\n +fix: .*NODE_EXTRA_CA_CERTS/],
    ["a listener that wants TLS", 'topic = "events"', () => server.secured, /.*\n +fix: .*events\.kafka\.tls/],
    ["nobody there", 'topic = "events"', () => "127.0.0.1:1", /127\.0\.0\.1:1.*\n +fix: check KAFKA_BROKERS/],
    ["no address", 'topic = "events"', () => "", /environment KAFKA_BROKERS: .*\n +fix: set that variable/],
  ])("%s fails, with what to do", async (_name, kafka, broker, expected) => {
    const out = await doctor(kafka, { ...alice, KAFKA_BROKERS: broker() });
    expect(/^FAIL {2}Kafka topic events: (.*\n.*)$/m.exec(out)?.[1]).toMatch(expected);
  });
});
