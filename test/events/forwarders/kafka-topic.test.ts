import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { RefusedError } from "../../../src/events/forwarders/forwarder.ts";
import { createKafkaTopic, type KafkaTopicOptions } from "../../../src/events/forwarders/kafka-topic.ts";
import { envelopes } from "../../support/envelopes.ts";
import { eventually } from "../../support/eventually.ts";
import { describeWithKafka, type KafkaServer, startKafkaServer, startMs } from "../../support/kafka-server.ts";

describeWithKafka("the Kafka topic", () => {
  let server: KafkaServer;
  beforeAll(async () => {
    server = await startKafkaServer(["message.max.bytes=20000"]);
  }, startMs);
  afterAll(() => server.close());

  function open(topic: string, options: Partial<KafkaTopicOptions> = {}) {
    const target = createKafkaTopic({
      brokers: [server.broker],
      topic,
      create: undefined,
      compression: "lz4",
      tls: false,
      login: undefined,
      ...options,
    });
    onTestFinished(() => target.close());
    return target;
  }

  const numbers = (records: readonly { readonly value: string }[]): number[] =>
    records.map(({ value }) => (JSON.parse(value) as { n: number }).n);

  test("has an event's attributes as headers, its data as the value, its user as the key", async () => {
    await server.createTopic("attributes", 1);
    const target = open("attributes");
    await target.connect();
    expect(target.isConnected()).toBe(true);
    await target.send([...envelopes(1, 1), ...envelopes(2, 2, { user: null, trace_id: "ab".repeat(16) })]);
    const [first, second] = await server.readTopic("attributes");
    expect(first).toEqual({
      partition: 0,
      key: "user-1",
      value: '{"n":1}',
      timestamp: Date.UTC(2026, 10, 22, 10),
      headers: {
        "content-type": "application/json",
        ce_specversion: "1.0",
        ce_id: "id-1",
        ce_source: "/deepseek-proxy/node-1",
        ce_type: "deepseek-proxy.login.succeeded",
        ce_time: "2026-11-22T10:00:00.000Z",
        ce_dataschema: "docs/events.schema.json#/$defs/login.succeeded",
        ce_dataversion: "1",
        ce_node: "node-1",
        ce_subject: "user-1",
        ce_user: "user-1",
        ce_requestid: "request-1",
        ce_address: "192.0.2.1",
      },
    });
    expect(second).toMatchObject({ key: undefined, headers: { ce_traceid: "ab".repeat(16) } });
  });

  test.each(["none", "gzip", "snappy", "lz4"] as const)(
    "with compression %s keeps a user's events in one partition, in order",
    async (compression) => {
      const topic = `order-${compression}`;
      await server.createTopic(topic, 3);
      const target = open(topic, { compression });
      await target.connect();
      await target.send(envelopes(1, 50));
      await target.send(envelopes(51, 100));
      const records = await server.readTopic(topic);
      expect(numbers(records).toSorted((a, b) => a - b)).toEqual(Array.from({ length: 100 }, (_, index) => index + 1));
      for (let user = 0; user < 7; user++) {
        const own = records.filter(({ key }) => key === `user-${user}`);
        expect(new Set(own.map(({ partition }) => partition)).size).toBe(1);
        expect(numbers(own)).toEqual(numbers(own).toSorted((a, b) => a - b));
      }
      // What Java's client chooses for these keys.
      const partitions = Array.from(
        { length: 7 },
        (_, user) => records.find(({ key }) => key === `user-${user}`)?.partition,
      );
      expect(partitions).toEqual([1, 2, 2, 2, 1, 1, 2]);
    },
  );

  test("events without a user go to all partitions", async () => {
    await server.createTopic("users-less", 3);
    const target = open("users-less");
    await target.connect();
    await target.send(envelopes(1, 9, { user: null }));
    const records = await server.readTopic("users-less");
    expect(new Set(records.map(({ partition }) => partition)).size).toBe(3);
  });

  test("a missing topic is an error that says what to do, unless it may be created", async () => {
    await expect(open("missing").connect()).rejects.toThrow("the topic missing does not exist: create it");
    const target = open("made", { create: { partitions: 2, replicas: 1 } });
    await target.connect();
    await eventually(async () => {
      await target.connect();
      await target.send(envelopes(1, 3));
    });
    expect(await server.readTopic("made")).toHaveLength(3);
  });

  test("a batch that is too large is refused, and a smaller one taken", async () => {
    await server.createTopic("large", 1);
    const target = open("large", { compression: "none" });
    await target.connect();
    const events = envelopes(1, 4).map((event) => ({ ...event, data: { n: 1, text: "x".repeat(9000) } }));
    await expect(target.send(events)).rejects.toThrow(RefusedError);
    await target.connect();
    await target.send(events.slice(0, 1));
    expect(await server.readTopic("large")).toHaveLength(1);
  });

  test("nobody there, and a broker that is killed, are errors that pass", { timeout: startMs }, async () => {
    await expect(open("any", { brokers: ["127.0.0.1:1"] }).connect()).rejects.toThrow("127.0.0.1:1");
    await server.createTopic("outage", 3);
    const target = open("outage");
    await target.connect();
    await target.send(envelopes(1, 10));
    await server.kill();
    await expect(target.send(envelopes(11, 20))).rejects.toThrow();
    expect(target.isConnected()).toBe(false);
    await server.restart();
    await eventually(async () => {
      await target.connect();
      await target.send(envelopes(11, 20));
    }, 20_000);
    const seen = new Set(numbers(await server.readTopic("outage")));
    expect(seen.size).toBe(20);
  });
});
