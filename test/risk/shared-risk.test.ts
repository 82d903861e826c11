import { expect, it, onTestFinished } from "vitest";
import { configSchema } from "../../src/config/schema.ts";
import type { ChatFinished, ProxyEvent } from "../../src/events/catalogue.ts";
import { type Redis, RedisUnavailableError } from "../../src/lib/redis/redis.ts";
import { openSharedRisk } from "../../src/risk/redis/shared-risk.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { chatFinished } from "../support/events.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { describeWithRedis, newPrefix, useRedis } from "../support/redis-server.ts";

const hourMs = 3_600_000;
const start = Date.UTC(2026, 0, 5);
const alice = { username: "alice", created_at: new Date(start) };
const gone = { outcome: "client_gone", code: "client_gone", firstEventMs: null } as const;
const config = configSchema.parse({ risk: { enabled: true } }).risk;

describeWithRedis("trust steps of several processes", () => {
  const { open } = useRedis();

  function setUp() {
    const keyPrefix = newPrefix();
    const clock = createManualClock(start);
    const events: ProxyEvent[] = [];
    /** A process; `wrap` changes its connection. */
    const process = async (wrap = (redis: Redis): Redis => redis) => {
      const redis = wrap(await open({ keyPrefix }));
      const log = createCapturedLog();
      const emit = (event: ProxyEvent): void => void events.push(event);
      const risk = await openSharedRisk({ config, ownRules: new Set(), clock, emit, redis, log, syncMs: 1e9 });
      onTestFinished(() => risk.close());
      const chats = (count: number, changes: Partial<ChatFinished> = {}): void => {
        for (let i = 0; i < count; i++) {
          risk.trustOf(alice);
          risk.sink(chatFinished({ at: clock.now(), user: "alice", ...changes }));
        }
      };
      return { ...risk, chats, step: () => risk.trustOf(alice).step };
    };
    return { clock, events, process };
  }

  it("are made once of what all of them have seen, and hold at each", async () => {
    const { clock, events, process } = setUp();
    const [one, other] = [await process(), await process()];
    // Neither has seen enough to judge by.
    one.chats(6, gone);
    other.chats(6, gone);
    clock.advance(20_000);
    await Promise.all([one.sync(), other.sync()]);
    one.chats(1, gone);
    other.chats(1, gone);
    await Promise.all([one.sync(), other.sync()]);
    await Promise.all([one.sync(), other.sync()]);
    expect([one.step(), other.step()]).toEqual(["restricted", "restricted"]);
    expect(events).toMatchObject([{ type: "trust.changed", user: "alice", from: "probation", to: "restricted" }]);
    await Promise.all([one.refresh("alice"), other.refresh()]);
    expect(one.view(alice)).toEqual(other.view(alice));
    expect((await process()).step()).toBe("restricted");
    clock.advance(13 * hourMs);
    expect(other.list({ minScore: 0, limit: 9 }).total).toBe(1);
  });

  it("count every request, however many processes add at once", async () => {
    const { process } = setUp();
    const all = [await process(), await process(), await process()];
    for (let round = 0; round < 5; round++) {
      for (const each of all) each.chats(4);
      await Promise.all(all.map((each) => each.sync()));
    }
    for (const each of all) await each.refresh();
    expect(all.map((each) => each.view(alice).completed)).toEqual([60, 60, 60]);
  });

  it("know a pin everywhere, and tell of it once", async () => {
    const { events, process } = setUp();
    const [one, other] = [await process(), await process()];
    one.chats(1);
    await one.sync();
    const pinned = { ...alice, trust_step: "trusted" };
    await one.notePin(pinned);
    expect(other.trustOf(pinned).step).toBe("trusted");
    await other.sync();
    // An account that was read before the pin changes nothing.
    other.trustOf(alice);
    await other.sync();
    await one.sync();
    expect(events.map((event) => (event.type === "trust.changed" ? event.to : ""))).toEqual(["trusted"]);
    expect(one.view(pinned)).toMatchObject({ pinned: true, trust: { step: "trusted" } });
  });

  it("count once what was sent again after a lost answer", async () => {
    const { process } = setUp();
    let isLost = true;
    const one = await process((redis) => ({
      ...redis,
      async call(name, ...rest) {
        const reply = await redis.call(name, ...rest);
        if (name !== "trust_put" || !isLost) return reply;
        throw new Error("the answer was lost");
      },
    }));
    one.chats(3);
    await expect(one.sync()).rejects.toThrow("lost");
    one.chats(2);
    isLost = false;
    await one.sync();
    expect(one.view(alice).completed).toBe(5);
    const other = await process();
    expect(other.view(alice).completed).toBe(5);
  });

  it("have room again for what is noted of an account in whose place another one has come", async () => {
    const { clock, process } = setUp();
    let isAway = true;
    const one = await process((redis) => ({
      ...redis,
      call: (...given) => (isAway ? Promise.reject(new RedisUnavailableError("away")) : redis.call(...given)),
    }));
    // As many as are noted at the most.
    one.chats(20_000);
    const successor = { ...alice, created_at: new Date(start + hourMs) };
    clock.advance(hourMs);
    one.trustOf(successor);
    one.sink(chatFinished({ at: clock.now(), user: "alice" }));
    isAway = false;
    await one.sync();
    expect(one.view(successor).completed).toBe(1);
  });

  it("are given back to a Redis that has lost them", async () => {
    const { process } = setUp();
    let connection: Redis | undefined;
    const one = await process((redis) => (connection = redis));
    one.chats(7);
    await one.sync();
    await connection?.onEveryServer(["FLUSHALL"]);
    await one.sync();
    await one.sync();
    expect((await process()).view(alice).completed).toBe(7);
  });
});
