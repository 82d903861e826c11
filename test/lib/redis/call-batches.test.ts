import { ErrorReply } from "@redis/client";
import { expect, it } from "vitest";
import { createCallBatches } from "../../../src/lib/redis/call-batches.ts";
import { CallNotNeededError, type RedisReply } from "../../../src/lib/redis/redis.ts";
import { createRedisLibrary } from "../../../src/redis-library.ts";
import { describeWithRedis, useRedis, useRedisCluster } from "../../support/redis-server.ts";

const library = createRedisLibrary();
const tagIn = (key: string): string => key.split(":")[0] ?? "";

/** Notes what is sent: the name of the function, and of those in a batch. */
function start(answer: (command: readonly string[]) => RedisReply | Error = () => []) {
  const sent: string[] = [];
  const batches = createCallBatches(library, tagIn, (_key, command) => {
    const name = (command[1] ?? "").slice(library.name.length + 1);
    const parts = command.filter((text) => /^(?:ledger|permits|rates)_/.test(text));
    sent.push([name, ...parts].join(" "));
    const reply = answer(command);
    return reply instanceof Error ? Promise.reject(reply) : Promise.resolve(reply);
  });
  return { batches, sent };
}

it("puts calls that are made together into one command for each slot, in their order", async () => {
  const { batches, sent } = start((command) => (command[1]?.includes("_batch") ? ["first", "second"] : "alone"));
  const [a, b, c] = [
    batches.call("ledger_reserve", ["one:a"], [1]),
    batches.call("rates_take", ["two:a"], []),
    batches.call("permits_acquire", ["one:b"], ["x"]),
  ];
  expect(sent).toEqual([]);
  expect(await Promise.all([a, b, c])).toEqual(["first", "alone", "second"]);
  expect(sent).toEqual(["batch ledger_reserve permits_acquire", "rates_take"]);
  expect(batches.count()).toBe(0);
});

it("keeps apart what runs where memory is full, and keeps the order", async () => {
  const { batches, sent } = start(() => ["x", "y"]);
  for (const name of ["rates_take", "rates_cancel", "permits_release", "ledger_reserve"])
    void batches.call(name, ["one:a"], []);
  batches.flush();
  await Promise.resolve();
  expect(sent).toEqual(["rates_take", "batch_tolerant rates_cancel permits_release", "ledger_reserve"]);
});

it("asks right before it sends whether a call is still needed", async () => {
  const { batches, sent } = start((command) => (command[1]?.includes("_batch") ? ["first", "second"] : "alone"));
  let isNeeded = true;
  const needless = batches.call("ledger_commit", ["one:a"], [], () => isNeeded);
  const others = [
    batches.call("ledger_settle", ["one:a"], []),
    batches.call("permits_release", ["one:a"], [], () => true),
  ];
  isNeeded = false;
  await expect(needless).rejects.toThrow(CallNotNeededError);
  expect(await Promise.all(others)).toEqual(["first", "second"]);
  await expect(batches.call("ledger_commit", ["one:a"], [], () => isNeeded)).rejects.toThrow(CallNotNeededError);
  expect(sent).toEqual(["batch_tolerant ledger_settle permits_release"]);
  expect(batches.count()).toBe(0);
});

it("sends no more than 32 calls in one command", async () => {
  const { batches, sent } = start((command) => command.filter((text) => text === "rates_take"));
  await Promise.all(Array.from({ length: 33 }, () => batches.call("rates_take", ["one:a"], [])));
  expect(sent.map((text) => text.split(" ").length)).toEqual([33, 1]);
});

it("gives each call its own answer, and all of them the error of the whole", async () => {
  const { batches } = start(() => ["fine", new ErrorReply("ERR bad") as unknown as RedisReply]);
  const both = [batches.call("rates_take", ["a"], []), batches.call("rates_take", ["a"], [])];
  expect(await Promise.allSettled(both)).toMatchObject([
    { value: "fine" },
    { reason: { name: "RedisReplyError", message: "ERR bad" } },
  ]);
  const failing = start(() => new Error("away")).batches;
  const lost = [failing.call("rates_take", ["a"], []), failing.call("rates_take", ["a"], [])];
  expect(await Promise.allSettled(lost)).toMatchObject([{ reason: { message: "away" } }, { reason: {} }]);
  expect(failing.count()).toBe(0);
});

for (const [where, server] of [
  ["Redis", useRedis],
  ["a cluster", useRedisCluster],
] as const) {
  describeWithRedis(`calls made together, in ${where}`, () => {
    const { open } = server();

    it("have each its answer, though one of them fails", async () => {
      const redis = await open();
      const key = redis.keyIn("00", "text");
      await redis.send(key, ["SET", key, "x"]);
      const [now, missing, failing, counts] = await Promise.allSettled([
        redis.call("now", [key], []),
        redis.call("lease_take", [redis.keyIn("00", "lease"), redis.keyIn("00", "term")], ["me", 1000]),
        redis.call("rates_count", [key], []),
        redis.call("permits_count", [redis.keyIn("0f", "none")], []),
      ]);
      expect(now).toMatchObject({ status: "fulfilled" });
      expect(missing).toMatchObject({ value: [1, "1", "me"] });
      expect(failing).toMatchObject({ reason: { name: "RedisReplyError" } });
      expect(String((failing as PromiseRejectedResult).reason)).toContain("WRONGTYPE");
      expect(counts).toMatchObject({ value: [0] });
    });
  });
}
