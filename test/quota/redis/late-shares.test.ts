import { expect, it } from "vitest";
import type { Redis } from "../../../src/lib/redis/redis.ts";
import type { QuotaLimit } from "../../../src/quota/ledger.ts";
import { eventually } from "../../support/eventually.ts";
import { ask, charge, settlement, usedOf } from "../../support/ledger.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { createTimedLibrary, openTestRedisLedger, seedTags, withClock } from "../../support/redis-ledger.ts";
import { describeWithRedis, useRedis } from "../../support/redis-server.ts";

const tokens: QuotaLimit = { metric: "tokens", per: "day", max: 1000 };
const ofGroup = (["day", "week", "total"] as const).map((per): QuotaLimit => ({ ...tokens, per, group: "red" }));
// A Sunday: with the day a week ends.
const midnight = Date.parse("2026-11-22T16:00:00Z");

describeWithRedis("a group's part of a charge over Redis", () => {
  const { open } = useRedis();
  const library = createTimedLibrary();

  it("counts where the user's part counts, though it comes after midnight, and after others", async () => {
    const clock = createManualClock(midnight - 100);
    const connection = await open({ library });
    const redis = withClock(connection, clock);
    await seedTags(redis);
    let arrive = (): void => undefined;
    const arrival = new Promise<void>((resolve) => (arrive = resolve));
    const delayed: Redis = {
      ...connection,
      async call(name, keys, ...rest) {
        if (name === "ledger_commit" && keys[0].endsWith("@red")) await arrival;
        return connection.call(name, keys, ...rest);
      },
    };
    const ledger = await openTestRedisLedger(redis, clock);
    const slow = await openTestRedisLedger(withClock(delayed, clock), clock);
    const late = await slow.reserve(ask({ limits: ofGroup, group: "red", upperBound: charge(1, 100) }));
    await late.commit(charge(1, 10));
    await eventually(async () => {
      expect(await usedOf(slow, [tokens])).toEqual([10]);
    });
    clock.advance(200);
    const next = await ledger.reserve(ask({ user: "bob", limits: ofGroup, group: "red", upperBound: charge(1, 5) }));
    await next.commit(charge(1, 5));
    await next.settle(settlement(charge(1, 5)));
    arrive();
    await late.settle(settlement(charge(1, 80)));
    expect(await usedOf(ledger, ofGroup)).toEqual([5, 5, 85]);
  });

  it("is forgotten where it is charged in the ms in which the group is reset, as in the copies", async () => {
    const clock = createManualClock(midnight);
    const redis = withClock(await open({ library }), clock);
    await seedTags(redis);
    const ledger = await openTestRedisLedger(redis, clock);
    await ledger.reset("@red", "day", { reason: "x", by: "y" });
    const hold = await ledger.reserve(ask({ limits: ofGroup, group: "red", upperBound: charge(1, 100) }));
    await hold.commit(charge(1, 10));
    await hold.settle(settlement(charge(1, 80)));
    expect(await usedOf(ledger, ofGroup)).toEqual([0, 80, 80]);
  });
});
