import { createClient } from "@redis/client";
import { expect, onTestFinished, test } from "vitest";
import { createRedisStream, type RedisStreamOptions } from "../../../src/events/forwarders/redis-stream.ts";
import { parseRedisUrl } from "../../../src/lib/redis/redis-url.ts";
import { envelopes } from "../../support/envelopes.ts";
import { eventually } from "../../support/eventually.ts";
import {
  describeWithRedis,
  newPrefix,
  startRedisServer,
  useRedis,
  useRedisCluster,
} from "../../support/redis-server.ts";

describeWithRedis("the Redis Stream", () => {
  const redis = useRedis();

  function open(options: Partial<RedisStreamOptions> & { readonly url?: string } = {}) {
    const { url = redis.server().url, stream = newPrefix() } = options;
    const trimmed: number[] = [];
    const onTrimmed = (count: number) => trimmed.push(count);
    const common = { target: parseRedisUrl(url), stream, maxLength: 1000, trim: "acknowledged" as const, onTrimmed };
    const target = createRedisStream({ ...common, ...options });
    onTestFinished(() => target.close());
    return { ...target, stream, trimmed };
  }

  async function client() {
    const opened = createClient({ url: redis.server().url });
    await opened.connect();
    onTestFinished(() => {
      opened.destroy();
    });
    return opened;
  }

  async function entriesOf(stream: string): Promise<readonly Readonly<Record<string, string>>[]> {
    return ((await (await client()).xRange(stream, "-", "+")) ?? []).map(({ message }) => ({ ...message }));
  }

  async function numbersIn(stream: string): Promise<number[]> {
    return (await entriesOf(stream)).map(({ data = "" }) => (JSON.parse(data) as { n: number }).n);
  }

  test("has an event's attributes and its data as fields", async () => {
    const target = open();
    await target.connect();
    expect(target.isConnected()).toBe(true);
    await target.send(envelopes(1, 1));
    expect((await entriesOf(target.stream))[0]).toEqual({
      specversion: "1.0",
      id: "id-1",
      source: "/deepseek-proxy/node-1",
      type: "deepseek-proxy.login.succeeded",
      time: "2026-11-22T10:00:00.000Z",
      datacontenttype: "application/json",
      dataschema: "docs/events.schema.json#/$defs/login.succeeded",
      dataversion: "1",
      node: "node-1",
      subject: "user-1",
      user: "user-1",
      requestid: "request-1",
      address: "192.0.2.1",
      data: '{"n":1}',
    });
  });

  test("keeps what a group has not acknowledged, and takes nothing once it is full of that", async () => {
    const target = open({ maxLength: 150 });
    const reader = await client();
    await target.connect();
    await target.send(envelopes(1, 100));
    await reader.xGroupCreate(target.stream, "fast", "0");
    await reader.xGroupCreate(target.stream, "slow", "0");
    await target.send(envelopes(101, 200));
    await expect(target.send(envelopes(201, 210))).rejects.toThrow("is full");
    const [got] = (await reader.xReadGroup("fast", "one", { key: target.stream, id: ">" }, { COUNT: 200 })) as {
      messages: { id: string; message: Record<string, string> }[];
    }[];
    await reader.xAck(
      target.stream,
      "fast",
      (got?.messages ?? []).map(({ id }) => id),
    );
    // The other one has read nothing.
    await expect(target.send(envelopes(201, 210))).rejects.toThrow("is full");
    const [slow] = (await reader.xReadGroup("slow", "one", { key: target.stream, id: ">" }, { COUNT: 120 })) as {
      messages: { id: string }[];
    }[];
    const read = (slow?.messages ?? []).map(({ id }) => id);
    // Number 61 stays pending: what is behind it is acknowledged, and kept all the same.
    await reader.xAck(
      target.stream,
      "slow",
      read.filter((_, index) => index !== 60),
    );
    await target.send(envelopes(201, 210));
    const left = await numbersIn(target.stream);
    expect(left).toEqual(Array.from({ length: 150 }, (_, index) => index + 61));
    expect(target.trimmed).toEqual([]);
  });

  test("without a group keeps everything, up to the limit", async () => {
    const target = open({ maxLength: 100 });
    await target.connect();
    await target.send(envelopes(1, 100));
    await expect(target.send(envelopes(101, 101))).rejects.toThrow("is full of 100 events");
  });

  test("by length removes the oldest, and counts what a group had not acknowledged", async () => {
    const target = open({ maxLength: 100, trim: "length" });
    const reader = await client();
    await target.connect();
    await target.send(envelopes(1, 100));
    await reader.xGroupCreate(target.stream, "one", "0");
    const [got] = (await reader.xReadGroup("one", "one", { key: target.stream, id: ">" }, { COUNT: 30 })) as {
      messages: { id: string }[];
    }[];
    await reader.xAck(
      target.stream,
      "one",
      (got?.messages ?? []).map(({ id }) => id),
    );
    await target.send(envelopes(101, 120));
    expect(target.trimmed).toEqual([]);
    await target.send(envelopes(121, 170));
    // 1 to 70 are gone, and 1 to 30 had been acknowledged.
    expect(target.trimmed).toEqual([40]);
    expect(await numbersIn(target.stream)).toEqual(Array.from({ length: 100 }, (_, index) => index + 71));
  });

  test("a key that belongs to something else is left alone", async () => {
    const target = open();
    await (await client()).set(target.stream, "mine");
    await target.connect();
    await expect(target.send(envelopes(1, 1))).rejects.toThrow("WRONGTYPE");
    expect(await (await client()).get(target.stream)).toBe("mine");
  });

  test("comes back by itself after an outage", async () => {
    const server = await startRedisServer();
    onTestFinished(() => server.close());
    const target = open({ url: server.url });
    await target.connect();
    await server.kill();
    await expect(target.send(envelopes(1, 3))).rejects.toThrow();
    await server.restart();
    await eventually(async () => {
      await target.connect();
      await target.send(envelopes(1, 3));
    });
  });

  test("says that the password was changed, not only that there is no connection", async () => {
    const server = await startRedisServer();
    onTestFinished(() => server.close());
    const target = open({ url: server.url });
    await target.connect();
    const admin = createClient({ url: server.url });
    admin.on("error", () => undefined);
    await admin.connect();
    onTestFinished(() => {
      admin.destroy();
    });
    await admin.sendCommand(["CONFIG", "SET", "requirepass", "another"]);
    await admin.sendCommand(["CLIENT", "KILL", "TYPE", "normal"]);
    await eventually(async () => {
      await expect(target.send(envelopes(1, 3))).rejects.toThrow(/NOAUTH/);
    });
    await admin.sendCommand(["CONFIG", "SET", "requirepass", ""]);
    await eventually(() => target.send(envelopes(1, 3)));
    await expect(target.send(envelopes(4, 6))).resolves.toBeUndefined();
  });

  test("a server that hangs is given up, and found again", async () => {
    const server = await startRedisServer();
    onTestFinished(() => server.close());
    const target = open({ url: server.url, timeoutMs: 50 });
    await target.connect();
    server.pause();
    await expect(target.send(envelopes(1, 3))).rejects.toThrow();
    expect(target.isConnected()).toBe(false);
    server.resume();
    await eventually(async () => {
      await target.connect();
      await target.send(envelopes(1, 3));
    });
  });
});

describeWithRedis("the Redis Stream in a cluster", () => {
  const cluster = useRedisCluster();

  test("goes to the node that has its key", async () => {
    const target = createRedisStream({
      target: parseRedisUrl(cluster.url()),
      stream: "events",
      maxLength: 1000,
      trim: "length",
      onTrimmed: () => undefined,
    });
    onTestFinished(() => target.close());
    await target.connect();
    await target.send(envelopes(1, 100));
    await target.send(envelopes(101, 200));
    expect(target.isConnected()).toBe(true);
  });
});
