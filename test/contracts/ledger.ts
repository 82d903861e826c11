import { describe, expect, it } from "vitest";
import { AppError } from "../../src/errors.ts";
import type { Clock } from "../../src/lib/clock.ts";
import type { JournalPosition } from "../../src/lib/journal/journal-stream.ts";
import type { Ledger, QuotaLimit } from "../../src/quota/ledger.ts";
import { decodeLedgerRecord } from "../../src/quota/memory/charge-record.ts";
import { exportUsage } from "../../src/quota/usage/usage-export.ts";
import { attempt, refusalOf } from "../support/attempt.ts";
import { ask, charge, monthly, settlement, usedOf } from "../support/ledger.ts";
import { createManualClock } from "../support/manual-clock.ts";

const now = Date.parse("2026-11-22T04:00:00Z");

/**
 * What every ledger does.
 *
 * @param open a new one in the time zone of Shanghai, by this clock
 */
export function describeLedger(name: string, open: (clock: Clock) => Promise<Ledger>): void {
  describe(name, () => {
    describe("a request in a group", () => {
      const shared: QuotaLimit = { ...monthly(2), group: "red" };
      const limits = [monthly(500), shared];

      it("counts for the user and for the group, at each step", async () => {
        const ledger = await open(createManualClock(now));
        const hold = await ledger.reserve(ask({ limits, group: "red" }));
        const [other] = await ledger.buckets("bob", [shared]);
        expect(other).toMatchObject({ used: 0, reserved: 1, remaining: 1 });
        expect(await hold.commit(charge(1))).toMatchObject([{ used: 1 }, { used: 1, reserved: 0 }]);
        await hold.settle(settlement(charge(1)));
        expect(await usedOf(ledger, limits)).toEqual([1, 1]);
        expect(await usedOf(ledger, limits, "bob")).toEqual([0, 1]);
      });

      it("is refused where either has no room, and then takes from neither", async () => {
        const ledger = await open(createManualClock(now));
        await ledger.reserve(ask({ limits, group: "red" }));
        await ledger.reserve(ask({ user: "bob", limits, group: "red" }));
        const refusal = await refusalOf(() => ledger.reserve(ask({ user: "carol", limits, group: "red" })));
        expect(refusal).toMatchObject({ code: "quota_exceeded", extras: { details: { group: "red", reserved: 2 } } });
        expect(await ledger.buckets("carol", limits)).toMatchObject([{ reserved: 0 }, { reserved: 2 }]);
      });

      it("can be taken back in the group's account alone, which no sum over all users has", async () => {
        const ledger = await open(createManualClock(now));
        const hold = await ledger.reserve(ask({ limits, group: "red" }));
        await hold.commit(charge(1));
        await hold.settle(settlement(charge(1)));
        await ledger.adjust("@red", { requests: -1, tokens: 0, cost: 0, currency: "CNY" }, { reason: "x", by: "y" });
        expect(await usedOf(ledger, limits)).toEqual([1, 0]);
        const day = { from: "2026-11-22", to: "2026-11-22" };
        expect(await ledger.usage(day)).toMatchObject([{ requests: 1, adjusted: null }]);
        expect(await ledger.usage({ ...day, user: "@red" })).toMatchObject([
          { model: "adjust", adjusted: { requests: -1 } },
          { key: "alice", requests: 1 },
        ]);
      });
    });

    it("has recorded all of it, with the provider and the price", async () => {
      const ledger = await open(createManualClock(now));
      const source = { provider: "deep", price: "m@always 0/1/4/4" };
      const hold = await ledger.reserve(ask({ group: "red", apiKey: "k1" }));
      await hold.commit(charge(1, 3), source);
      await hold.settle({ ...settlement(charge(1, 70)), ...source });
      await (await ledger.reserve(ask({ user: "bob", requestId: "req-2" }))).commit(charge(1, 5), source);
      await ledger.adjust("bob", { requests: -1, tokens: 0, cost: 0, currency: "CNY" }, { reason: "x", by: "y" });
      const rows: object[] = [];
      for await (const item of exportUsage(ledger.recorded(), {})) if (item.kind === "row") rows.push(item.row);
      expect(rows).toMatchObject([
        { requestId: "req-1", user: "alice", group: "red", apiKey: "k1", tokens: 70, outcome: "completed", ...source },
        { kind: "adjust", user: "bob", requests: -1 },
        { requestId: "req-2", user: "bob", tokens: 5, outcome: "unsettled", settledAt: null, ...source },
      ]);
    });

    it("has recorded only what is new behind where an earlier reading ended", async () => {
      const ledger = await open(createManualClock(now));
      const use = async (requestId: string): Promise<void> => {
        const hold = await ledger.reserve(ask({ requestId }));
        await hold.commit(charge(1, 3));
        await hold.settle(settlement(charge(1, 7)));
      };
      await use("req-1");
      const first = await readRecorded(ledger);
      expect(first.kinds).toEqual(["req-1 charge", "req-1 settle"]);
      const none = await readRecorded(ledger, first.end);
      expect(none).toEqual({ kinds: [], end: first.end });
      await use("req-2");
      await ledger.adjust("bob", { requests: -1, tokens: 0, cost: 0, currency: "CNY" }, { reason: "x", by: "y" });
      const second = await readRecorded(ledger, none.end);
      expect(second.kinds).toEqual(["req-2 charge", "req-2 settle", "bob adjust"]);
      expect((await readRecorded(ledger, second.end)).kinds).toEqual([]);
      expect((await readRecorded(ledger)).kinds).toEqual([...first.kinds, ...second.kinds]);
    });

    describe("reserve, commit, settle", () => {
      it("charge nothing before the first event, and hold the place until then", async () => {
        const ledger = await open(createManualClock(now));
        const hold = await ledger.reserve(ask());
        expect(hold.buckets).toMatchObject([{ used: 0, reserved: 1, remaining: 499 }]);
        const committed = await hold.commit(charge(1));
        expect(hold.committed).toBe(true);
        expect(committed).toMatchObject([{ used: 1, reserved: 0, remaining: 499 }]);
        await hold.settle(settlement(charge(1)));
        expect(await usedOf(ledger)).toEqual([1]);
      });

      it("give everything back where there was no first event", async () => {
        const ledger = await open(createManualClock(now));
        const hold = await ledger.reserve(ask());
        expect(await hold.settle(settlement(charge(1), "upstream_failed"))).toMatchObject([
          { used: 0, reserved: 0, remaining: 500 },
        ]);
        await hold.commit(charge(1));
        expect(hold.committed).toBe(false);
        expect(await usedOf(ledger)).toEqual([0]);
      });

      it("roll back where the upstream failed after the first event", async () => {
        const ledger = await open(createManualClock(now));
        const hold = await ledger.reserve(ask());
        await hold.commit(charge(1));
        expect(await hold.settle(settlement(charge(0), "upstream_failed"))).toMatchObject([{ used: 0, reserved: 0 }]);
      });

      it("count once however often they are called", async () => {
        const ledger = await open(createManualClock(now));
        const hold = await ledger.reserve(ask({ upperBound: charge(1, 100) }));
        for (let i = 0; i < 3; i++) await hold.commit(charge(1, 10));
        for (let i = 0; i < 3; i++) await hold.settle(settlement(charge(1, 50)));
        const tokens: QuotaLimit = { metric: "tokens", per: "day", max: 1000 };
        expect(await ledger.buckets("alice", [monthly(500), tokens])).toMatchObject([
          { used: 1, reserved: 0 },
          { used: 50, reserved: 0 },
        ]);
      });

      it("keep holding what the first charge left of the upper bound", async () => {
        const limits: QuotaLimit[] = [{ metric: "tokens", per: "day", max: 1000 }];
        const ledger = await open(createManualClock(now));
        const hold = await ledger.reserve(ask({ limits, upperBound: charge(1, 600) }));
        await hold.commit(charge(1, 100));
        expect(await ledger.buckets("alice", limits)).toMatchObject([{ used: 100, reserved: 500, remaining: 400 }]);
        await expect(attempt(() => ledger.reserve(ask({ limits, upperBound: charge(1, 401) })))).rejects.toThrow(
          "tokens",
        );
        expect(await hold.settle(settlement(charge(1, 1200)))).toMatchObject([
          { used: 1200, reserved: 0, remaining: 0 },
        ]);
      });

      it("hold more while an answer grows, from all limits or from none, and give it back at the end", async () => {
        const limits: QuotaLimit[] = [
          { metric: "tokens", per: "day", max: 1000 },
          { metric: "cost", per: "day", max: 500, currency: "USD" },
        ];
        const ledger = await open(createManualClock(now));
        const hold = await ledger.reserve(ask({ limits, upperBound: charge(1, 600) }));
        await hold.commit(charge(1, 100));
        expect(await hold.grow(charge(0, 300, 400, "USD"))).toBeNull();
        expect(await ledger.buckets("alice", limits)).toMatchObject([{ used: 100, reserved: 800 }, { reserved: 400 }]);
        const [ofTokens, ofCost] = await ledger.buckets("alice", limits);
        expect(await hold.grow(charge(0, 100, 101, "USD"))).toEqual(ofCost);
        expect(await hold.grow(charge(0, 101))).toEqual(ofTokens);
        expect(await ledger.buckets("alice", limits)).toMatchObject([{ used: 100, reserved: 800 }, { reserved: 400 }]);
        expect(await hold.settle(settlement(charge(1, 900, 400, "USD")))).toMatchObject([
          { used: 900, reserved: 0 },
          { used: 400, reserved: 0 },
        ]);
        expect(await hold.grow(charge(0, 1))).toBeNull();
        expect(await ledger.buckets("alice", limits)).toMatchObject([{ reserved: 0 }, { reserved: 0 }]);
      });

      it.each(["user", "API key", "group"])(
        "hold more over the end of a period only where both periods of the %s have room, with what was given back since",
        async (whose) => {
          const scope = whose === "API key" ? { apiKey: "key-1" } : whose === "group" ? { group: "lab" } : {};
          const limits: QuotaLimit[] = [{ metric: "tokens", per: "day", max: 300, ...scope }];
          const source = { apiKey: "key-1", group: "lab", limits };
          const clock = createManualClock(now);
          const ledger = await open(clock);
          const [long, short] = [
            await ledger.reserve(ask({ ...source, upperBound: charge(1, 100) })),
            await ledger.reserve(ask({ ...source, requestId: "req-2", upperBound: charge(1, 150) })),
          ];
          await long.commit(charge(1, 100));
          await short.commit(charge(1, 150));
          clock.advance(86_400_000);
          expect(await long.grow(charge(0, 50))).toBeNull();
          const before = { used: 250, reserved: 50, remaining: 0 };
          expect(await long.grow(charge(0, 1))).toMatchObject({ limit: limits[0], ...before });
          // Something is counted in the new period, which has room of its own.
          const next = await ledger.reserve(ask({ ...source, requestId: "req-3", upperBound: charge(1, 10) }));
          await next.commit(charge(1, 10));
          await next.settle(settlement(charge(1, 10)));
          expect(await long.grow(charge(0, 1))).toMatchObject({ limit: limits[0], ...before });
          await short.settle(settlement(charge(1, 110)));
          expect(await long.grow(charge(0, 40))).toBeNull();
          expect(await long.grow(charge(0, 1))).toMatchObject({ used: 210, reserved: 90, remaining: 0 });
          await long.settle(settlement(charge(1, 190)));
          expect(await ledger.buckets("alice", limits)).toMatchObject([{ used: 10, reserved: 0 }]);
        },
      );

      it("keep the first charge where the final one makes no sense", async () => {
        const ledger = await open(createManualClock(now));
        const hold = await ledger.reserve(ask({ upperBound: charge(1, 100) }));
        await hold.commit(charge(1, 10));
        expect(await hold.settle(settlement(charge(1, NaN)))).toMatchObject([{ used: 1, reserved: 0 }]);
        expect(await ledger.health()).toEqual({ ok: true });
      });

      it("refuse amounts that are none, and names that could be paths", async () => {
        const ledger = await open(createManualClock(now));
        await expect(attempt(() => ledger.reserve(ask({ upperBound: charge(-1) })))).rejects.toThrow(RangeError);
        await expect(attempt(async () => (await ledger.reserve(ask())).commit(charge(0.5)))).rejects.toThrow(
          RangeError,
        );
        await expect(attempt(() => ledger.reserve(ask({ user: "../x" })))).rejects.toThrow(RangeError);
        await expect(attempt(() => ledger.buckets("Admin", []))).rejects.toThrow(RangeError);
      });
    });

    describe("limits", () => {
      it("let exactly one of 100 at once have the last unit", async () => {
        const ledger = await open(createManualClock(now));
        const limits = [monthly(1)];
        const results = await Promise.allSettled(
          Array.from({ length: 100 }, async () => {
            const hold = await ledger.reserve(ask({ limits }));
            await new Promise(setImmediate);
            await hold.commit(charge(1));
            await hold.settle(settlement(charge(1)));
          }),
        );
        expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
        expect(await usedOf(ledger, limits)).toEqual([1]);
      });

      it("count exactly when a new user's first 50 requests come at once", async () => {
        const ledger = await open(createManualClock(now));
        await Promise.all(
          Array.from({ length: 50 }, async () => {
            const hold = await ledger.reserve(ask({ user: "new" }));
            await new Promise(setImmediate);
            await hold.commit(charge(1));
          }),
        );
        expect(await usedOf(ledger, [monthly(500)], "new")).toEqual([50]);
      });

      it("take from all buckets or from none", async () => {
        const limits: QuotaLimit[] = [monthly(10), { metric: "tokens", per: "day", max: 100 }];
        const ledger = await open(createManualClock(now));
        const { extras, code } = await refusalOf(() => ledger.reserve(ask({ limits, upperBound: charge(1, 101) })));
        expect(code).toBe("quota_exceeded");
        expect(extras.details).toMatchObject({ metric: "tokens", per: "day", used: 0, limit: 100, requested: 101 });
        expect(await ledger.buckets("alice", limits)).toMatchObject([
          { used: 0, reserved: 0 },
          { used: 0, reserved: 0 },
        ]);
      });

      it("say with 402 what is used up and when it comes back", async () => {
        const ledger = await open(createManualClock(now));
        const limits = [monthly(1)];
        await (await ledger.reserve(ask({ limits }))).commit(charge(1));
        const error = await refusalOf(() => ledger.reserve(ask({ limits })));
        expect(error.status).toBe(402);
        expect(error.message).toBe(
          "1 of 1 requests this month are used. The quota resets at 2026-11-30T16:00:00.000Z.",
        );
        expect(error.extras.details).toEqual({
          metric: "requests",
          per: "month",
          used: 1,
          reserved: 0,
          limit: 1,
          requested: 1,
          reset_at: "2026-11-30T16:00:00.000Z",
        });
      });

      it("say that the last unit is held by a request that is running", async () => {
        const ledger = await open(createManualClock(now));
        const limits = [monthly(1)];
        await ledger.reserve(ask({ limits }));
        expect((await refusalOf(() => ledger.reserve(ask({ limits })))).message).toContain(
          "1 more held by requests that are running",
        );
      });

      it("speak of money in units of its currency, and keep currencies apart", async () => {
        const limits: QuotaLimit[] = [{ metric: "cost", per: "total", max: 1_500_000_000, currency: "CNY" }];
        const ledger = await open(createManualClock(now));
        const bound = charge(1, 0, 1_400_000_000);
        const hold = await ledger.reserve(ask({ limits, upperBound: bound }));
        await hold.commit(bound);
        const refusal = await refusalOf(() => ledger.reserve(ask({ limits, upperBound: bound })));
        expect(refusal.extras.details).toMatchObject({ used: "1.4", limit: "1.5", currency: "CNY", reset_at: null });
        expect(refusal.message).toBe("1.4 of 1.5 CNY are used. This one may need 1.4. This limit does not reset.");
        await ledger.reserve(ask({ limits, upperBound: charge(1, 0, 9e12, "USD") }));
        expect(await ledger.buckets("alice", limits)).toMatchObject([
          { used: 1_400_000_000, reserved: 0, resetAt: null },
        ]);
      });

      it("that a tier gains later find what was used before", async () => {
        const ledger = await open(createManualClock(now));
        await (await ledger.reserve(ask({ limits: [], upperBound: charge(1, 70) }))).commit(charge(1, 70));
        expect(await usedOf(ledger, [{ metric: "tokens", per: "week", max: 1 }, monthly(2)])).toEqual([70, 1]);
      });

      it("of one user are not those of another", async () => {
        const ledger = await open(createManualClock(now));
        await (await ledger.reserve(ask({ limits: [monthly(1)] }))).commit(charge(1));
        await (await ledger.reserve(ask({ limits: [monthly(1)], user: "bob" }))).commit(charge(1));
        await expect(attempt(() => ledger.reserve(ask({ limits: [monthly(1)], user: "bob" })))).rejects.toThrow(
          AppError,
        );
      });
    });
  });
}

/** What the ledger has recorded behind a position, and where that ended. */
async function readRecorded(ledger: Ledger, after?: JournalPosition) {
  const kinds: string[] = [];
  let end: JournalPosition | undefined;
  for await (const piece of ledger.recorded(after)) {
    if (piece.kind === "end") end = piece.position;
    else if (piece.kind !== "records") throw new Error(JSON.stringify(piece));
    else
      for (const { payload } of piece.records) {
        const record = decodeLedgerRecord(payload);
        if (record === undefined) continue;
        kinds.push(`${"requestId" in record ? record.requestId : record.user} ${record.kind}`);
      }
  }
  return { kinds, end };
}
