import { expect, it } from "vitest";
import { type Redis, RedisUnavailableError } from "../../../src/lib/redis/redis.ts";
import type { QuotaLimit } from "../../../src/quota/ledger.ts";
import { eventually } from "../../support/eventually.ts";
import { ask, charge, settlement } from "../../support/ledger.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { createTimedLibrary, openTestRedisLedger, seedTags, withClock } from "../../support/redis-ledger.ts";
import { describeWithRedis, useRedis } from "../../support/redis-server.ts";

const tokens: QuotaLimit = { metric: "tokens", per: "total", max: 1000 };

describeWithRedis("a settlement whose answer was lost, by a process that was away until it was forgotten", () => {
  const { open } = useRedis();
  const library = createTimedLibrary();

  it.each(["before", "behind"])("counts once, %s the renewal of what the process held", async (order) => {
    const clock = createManualClock(Date.parse("2026-11-22T04:00:00Z"));
    const connection = await open({ library, timeoutMs: 2000 });
    const timed = withClock(connection, clock);
    await seedTags(timed);
    const state = { isSettled: false, isAway: false };
    const redis: Redis = {
      ...timed,
      async call(name, ...given) {
        const renews = name === "ledger_extend" || name === "ledger_hold_again";
        if (state.isAway && !renews) throw new RedisUnavailableError("away");
        const reply = await timed.call(name, ...given);
        if (name !== "ledger_settle" || state.isSettled) return reply;
        Object.assign(state, { isSettled: true, isAway: true });
        throw new RedisUnavailableError("the answer is lost");
      },
    };
    const ledger = await openTestRedisLedger(redis, clock);
    const hold = await ledger.reserve(ask({ limits: [tokens], upperBound: charge(1, 100) }));
    if (!("commit" in hold)) throw new Error("refused");
    await hold.commit(charge(1, 10));
    await eventually(async () => {
      expect((await ledger.buckets(ask({}).user, [tokens]))[0]?.used).toBe(10);
    });
    await hold.settle(settlement(charge(1, 60)));
    expect(ledger.stats().late).toBe(1);
    clock.advance(310_000);
    // Redis forgets by its own clock.
    for (const key of (await connection.send("", ["KEYS", "*hold*"])) as string[])
      await connection.send(key, ["DEL", key]);
    if (order === "behind") await ledger.leases.renew();
    state.isAway = false;
    await eventually(() => {
      expect(ledger.stats().late).toBe(0);
    });
    expect(await ledger.buckets(ask({}).user, [tokens])).toMatchObject([{ used: 60, reserved: 0 }]);
  });
});
