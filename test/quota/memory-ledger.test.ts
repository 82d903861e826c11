import { describe, expect, it } from "vitest";
import { AppError } from "../../src/errors.ts";
import type { QuotaLimit } from "../../src/quota/ledger.ts";
import { ask, charge, monthly, openTestLedger, settlement, usedOf } from "../support/ledger.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { tempDir } from "../support/temp-dir.ts";

const now = Date.parse("2026-11-22T04:00:00Z");

function open() {
  return openTestLedger(tempDir(), createManualClock(now));
}

function refusalOf(call: () => unknown): AppError {
  try {
    call();
  } catch (error) {
    if (error instanceof AppError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

describe("reserve, commit, settle", () => {
  it("charge nothing before the first event, and hold the place until then", async () => {
    const ledger = await open();
    const hold = ledger.reserve(ask());
    expect(hold.buckets()).toMatchObject([{ used: 0, reserved: 1, remaining: 499 }]);
    await hold.commit(charge(1));
    expect(hold.committed).toBe(true);
    expect(hold.buckets()).toMatchObject([{ used: 1, reserved: 0, remaining: 499 }]);
    await hold.settle(settlement(charge(1)));
    expect(usedOf(ledger)).toEqual([1]);
  });

  it("give everything back where there was no first event", async () => {
    const ledger = await open();
    const hold = ledger.reserve(ask());
    await hold.settle(settlement(charge(1), "upstream_failed"));
    expect(hold.buckets()).toMatchObject([{ used: 0, reserved: 0, remaining: 500 }]);
    await hold.commit(charge(1));
    expect(hold.committed).toBe(false);
    expect(usedOf(ledger)).toEqual([0]);
  });

  it("roll back where the upstream failed after the first event", async () => {
    const ledger = await open();
    const hold = ledger.reserve(ask());
    await hold.commit(charge(1));
    await hold.settle(settlement(charge(0), "upstream_failed"));
    expect(hold.buckets()).toMatchObject([{ used: 0, reserved: 0 }]);
  });

  it("count once however often they are called", async () => {
    const ledger = await open();
    const hold = ledger.reserve(ask({ upperBound: charge(1, 100) }));
    for (let i = 0; i < 3; i++) await hold.commit(charge(1, 10));
    for (let i = 0; i < 3; i++) await hold.settle(settlement(charge(1, 50)));
    const tokens: QuotaLimit = { metric: "tokens", per: "day", max: 1000 };
    expect(ledger.buckets("alice", [monthly(500), tokens])).toMatchObject([
      { used: 1, reserved: 0 },
      { used: 50, reserved: 0 },
    ]);
  });

  it("keep holding what the first charge left of the upper bound", async () => {
    const limits: QuotaLimit[] = [{ metric: "tokens", per: "day", max: 1000 }];
    const ledger = await open();
    const hold = ledger.reserve(ask({ limits, upperBound: charge(1, 600) }));
    await hold.commit(charge(1, 100));
    expect(hold.buckets()).toMatchObject([{ used: 100, reserved: 500, remaining: 400 }]);
    expect(() => ledger.reserve(ask({ limits, upperBound: charge(1, 401) }))).toThrow("tokens");
    await hold.settle(settlement(charge(1, 1200)));
    expect(hold.buckets()).toMatchObject([{ used: 1200, reserved: 0, remaining: 0 }]);
  });

  it("hold more while an answer grows, from all limits or from none, and give it back at the end", async () => {
    const limits: QuotaLimit[] = [
      { metric: "tokens", per: "day", max: 1000 },
      { metric: "cost", per: "day", max: 500, currency: "USD" },
    ];
    const ledger = await open();
    const hold = ledger.reserve(ask({ limits, upperBound: charge(1, 600) }));
    await hold.commit(charge(1, 100));
    expect(await hold.grow(charge(0, 300, 400, "USD"))).toBeNull();
    expect(hold.buckets()).toMatchObject([{ used: 100, reserved: 800 }, { reserved: 400 }]);
    expect(await hold.grow(charge(0, 100, 101, "USD"))).toBe(limits[1]);
    expect(await hold.grow(charge(0, 101))).toBe(limits[0]);
    expect(hold.buckets()).toMatchObject([{ used: 100, reserved: 800 }, { reserved: 400 }]);
    await hold.settle(settlement(charge(1, 900, 400, "USD")));
    expect(hold.buckets()).toMatchObject([
      { used: 900, reserved: 0 },
      { used: 400, reserved: 0 },
    ]);
    expect(await hold.grow(charge(0, 1))).toBeNull();
    expect(hold.buckets()).toMatchObject([{ reserved: 0 }, { reserved: 0 }]);
  });

  it("keep the first charge where the final one makes no sense", async () => {
    const ledger = await open();
    const hold = ledger.reserve(ask({ upperBound: charge(1, 100) }));
    await hold.commit(charge(1, 10));
    await hold.settle(settlement(charge(1, NaN)));
    expect(hold.buckets()).toMatchObject([{ used: 1, reserved: 0 }]);
    expect(ledger.health()).toEqual({ ok: true });
  });

  it("refuse amounts that are none, and names that could be paths", async () => {
    const ledger = await open();
    expect(() => ledger.reserve(ask({ upperBound: charge(-1) }))).toThrow(RangeError);
    expect(() => ledger.reserve(ask()).commit(charge(0.5))).toThrow(RangeError);
    expect(() => ledger.reserve(ask({ user: "../x" }))).toThrow(RangeError);
    expect(() => ledger.buckets("Admin", [])).toThrow(RangeError);
  });
});

describe("limits", () => {
  it("let exactly one of 100 at once have the last unit", async () => {
    const ledger = await open();
    const limits = [monthly(1)];
    const results = await Promise.allSettled(
      Array.from({ length: 100 }, async () => {
        const hold = ledger.reserve(ask({ limits }));
        await new Promise(setImmediate);
        await hold.commit(charge(1));
        await hold.settle(settlement(charge(1)));
      }),
    );
    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    expect(usedOf(ledger, limits)).toEqual([1]);
  });

  it("count exactly when a new user's first 50 requests come at once", async () => {
    const ledger = await open();
    await Promise.all(
      Array.from({ length: 50 }, async () => {
        const hold = ledger.reserve(ask({ user: "new" }));
        await new Promise(setImmediate);
        await hold.commit(charge(1));
      }),
    );
    expect(usedOf(ledger, [monthly(500)], "new")).toEqual([50]);
  });

  it("take from all buckets or from none", async () => {
    const limits: QuotaLimit[] = [monthly(10), { metric: "tokens", per: "day", max: 100 }];
    const ledger = await open();
    const { extras, code } = refusalOf(() => ledger.reserve(ask({ limits, upperBound: charge(1, 101) })));
    expect(code).toBe("quota_exceeded");
    expect(extras.details).toMatchObject({ metric: "tokens", per: "day", used: 0, limit: 100, requested: 101 });
    expect(ledger.buckets("alice", limits)).toMatchObject([
      { used: 0, reserved: 0 },
      { used: 0, reserved: 0 },
    ]);
  });

  it("say with 402 what is used up and when it comes back", async () => {
    const ledger = await open();
    const limits = [monthly(1)];
    await ledger.reserve(ask({ limits })).commit(charge(1));
    const error = refusalOf(() => ledger.reserve(ask({ limits })));
    expect(error.status).toBe(402);
    expect(error.message).toBe("1 of 1 requests this month are used. The quota resets at 2026-11-30T16:00:00.000Z.");
    expect(error.extras.details).toEqual({
      ...{ metric: "requests", per: "month", used: 1, reserved: 0, limit: 1, requested: 1 },
      reset_at: "2026-11-30T16:00:00.000Z",
    });
  });

  it("say that the last unit is held by a request that is running", async () => {
    const ledger = await open();
    const limits = [monthly(1)];
    ledger.reserve(ask({ limits }));
    expect(refusalOf(() => ledger.reserve(ask({ limits }))).message).toContain(
      "1 more held by requests that are running",
    );
  });

  it("speak of money in units of its currency, and keep currencies apart", async () => {
    const limits: QuotaLimit[] = [{ metric: "cost", per: "total", max: 1_500_000_000, currency: "CNY" }];
    const ledger = await open();
    const bound = charge(1, 0, 1_400_000_000);
    const hold = ledger.reserve(ask({ limits, upperBound: bound }));
    await hold.commit(bound);
    const refusal = refusalOf(() => ledger.reserve(ask({ limits, upperBound: bound })));
    expect(refusal.extras.details).toMatchObject({ used: "1.4", limit: "1.5", currency: "CNY", reset_at: null });
    expect(refusal.message).toBe("1.4 of 1.5 CNY are used. This one may need 1.4. This limit does not reset.");
    ledger.reserve(ask({ limits, upperBound: charge(1, 0, 9e12, "USD") }));
    expect(ledger.buckets("alice", limits)).toMatchObject([{ used: 1_400_000_000, reserved: 0, resetAt: null }]);
  });

  it("that a tier gains later find what was used before", async () => {
    const ledger = await open();
    await ledger.reserve(ask({ limits: [], upperBound: charge(1, 70) })).commit(charge(1, 70));
    expect(usedOf(ledger, [{ metric: "tokens", per: "week", max: 1 }, monthly(2)])).toEqual([70, 1]);
  });

  it("of one user are not those of another", async () => {
    const ledger = await open();
    await ledger.reserve(ask({ limits: [monthly(1)] })).commit(charge(1));
    await ledger.reserve(ask({ limits: [monthly(1)], user: "bob" })).commit(charge(1));
    expect(() => ledger.reserve(ask({ limits: [monthly(1)], user: "bob" }))).toThrow(AppError);
  });
});
