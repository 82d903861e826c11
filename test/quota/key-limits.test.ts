import { fc } from "../support/fast-check.ts";
import { describe, expect, it } from "vitest";
import type { QuotaLimit } from "../../src/quota/ledger.ts";
import { ask, charge, monthly, openTestLedger, settlement, usedOf } from "../support/ledger.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { tempDir } from "../support/temp-dir.ts";

const ofKey = (max: number, apiKey = "key-1"): QuotaLimit => ({ ...monthly(max), apiKey });
const through = (max: number, apiKey = "key-1") => ask({ limits: [monthly(500), ofKey(max, apiKey)], apiKey });

describe("the limits of an API key", () => {
  const clock = createManualClock(Date.parse("2026-11-10T10:00:00+08:00"));

  async function setUp() {
    const dir = tempDir();
    const ledger = await openTestLedger(dir, clock);
    const use = async (max: number, apiKey?: string): Promise<void> => {
      const hold = ledger.reserve(through(max, apiKey));
      await hold.commit(charge(1));
      await hold.settle(settlement(charge(1)));
    };
    return { dir, ledger, use };
  }

  it("count what comes through the key, within what the user may use", async () => {
    const { ledger, use } = await setUp();
    await use(2);
    const other = ledger.reserve(ask());
    await other.commit(charge(1));
    await other.settle(settlement(charge(1)));
    expect(usedOf(ledger, [monthly(500), ofKey(2)])).toEqual([2, 1]);
    await use(2);
    expect(() => ledger.reserve(through(2))).toThrow(
      expect.objectContaining({
        code: "quota_exceeded",
        message: expect.stringContaining("through this API key") as string,
        extras: expect.objectContaining({
          details: expect.objectContaining({ api_key: "key-1", used: 2, limit: 2 }) as unknown,
        }) as unknown,
      }),
    );
    await use(2, "key-2");
    expect(usedOf(ledger, [monthly(500), ofKey(2), ofKey(2, "key-2")])).toEqual([4, 2, 1]);
  });

  it("take nothing from the user where the key has no room", async () => {
    const { ledger, use } = await setUp();
    await use(1);
    expect(() => ledger.reserve(through(1))).toThrow("1 of 1 requests this month are used through this API key");
    expect(ledger.buckets("alice", [monthly(500), ofKey(1)])).toMatchObject([
      { used: 1, reserved: 0 },
      { used: 1, reserved: 0 },
    ]);
  });

  it("give back what a broken answer was charged", async () => {
    const { ledger } = await setUp();
    const hold = ledger.reserve(through(5));
    expect(ledger.buckets("alice", [ofKey(5)])).toMatchObject([{ used: 0, reserved: 1, remaining: 4 }]);
    await hold.commit(charge(1));
    expect(ledger.buckets("alice", [ofKey(5)])).toMatchObject([{ used: 1, reserved: 0 }]);
    await hold.settle(settlement(charge(0), "upstream_failed"));
    expect(usedOf(ledger, [monthly(500), ofKey(5)])).toEqual([0, 0]);
  });

  it("hold across a crash and across a snapshot, and end with their period", async () => {
    const { dir, use } = await setUp();
    await use(5);
    const crashed = await openTestLedger(dir, clock);
    expect(usedOf(crashed, [monthly(500), ofKey(5)])).toEqual([1, 1]);
    await crashed.close();
    const reopened = await openTestLedger(dir, clock);
    expect(usedOf(reopened, [monthly(500), ofKey(5)])).toEqual([1, 1]);
    clock.advance(31 * 86_400_000);
    expect(usedOf(reopened, [monthly(500), ofKey(5)])).toEqual([0, 0]);
    await reopened.close();
  });

  it("are never oversold, whatever the order of requests", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ key: fc.constantFrom("a", "b"), act: fc.constantFrom("use", "drop", "crash") }), {
          maxLength: 40,
        }),
        async (steps) => {
          const own = tempDir();
          let book = await openTestLedger(own, clock);
          const used = new Map([
            ["a", 0],
            ["b", 0],
          ]);
          for (const { key, act } of steps) {
            if (act === "crash") book = await openTestLedger(own, clock);
            let hold;
            try {
              hold = book.reserve(through(5, key));
            } catch {
              expect(used.get(key)).toBe(5);
              continue;
            }
            if (act === "drop") await hold.settle(settlement(charge(0), "client_gone"));
            else {
              await hold.commit(charge(1));
              await hold.settle(settlement(charge(1)));
              used.set(key, (used.get(key) ?? 0) + 1);
            }
          }
          expect(usedOf(book, [ofKey(5, "a"), ofKey(5, "b")])).toEqual([used.get("a"), used.get("b")]);
          await book.close();
        },
      ),
      { numRuns: 30 },
    );
  });
});
