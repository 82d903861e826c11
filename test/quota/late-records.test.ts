import { describe, expect, it } from "vitest";
import type { LedgerRecord, LogPosition } from "../../src/quota/memory/charge-record.ts";
import type { QuotaLimit } from "../../src/quota/ledger.ts";
import type { Per } from "../../src/quota/periods.ts";
import { charge, openTestLedger, settlement, usedOf } from "../support/ledger.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { tempDir } from "../support/temp-dir.ts";

const midnight = Date.parse("2026-11-30T16:00:00Z");
const note = { reason: "r", by: "b" };
const periods: readonly Per[] = ["day", "week", "month", "total"];
const limits = periods.map((per): QuotaLimit => ({ metric: "tokens", per, max: 1e9, group: "red" }));

type Logged = LedgerRecord & { readonly from: LogPosition };

/** A charge of 10 tokens in a member's log, and its settlement of so many. */
function request(tag: string, user: string, at: number, tokens: number): readonly Logged[] {
  const common = { at, user, requestId: `r${at}`, model: "m", group: { name: "red", at } };
  const { usage, outcome, estimated, price } = settlement(charge(1, tokens));
  const first = charge(1, 10);
  return [
    { kind: "charge", ...common, charge: first, from: { log: `${tag}.a`, seq: 1 } },
    {
      kind: "settle",
      ...common,
      ...{ first, final: charge(1, tokens), usage, outcome, estimated, price, settledAt: at + 5000 },
      from: { log: `${tag}.a`, seq: 2 },
    },
  ];
}

/** What the group has used, by period, where logs come in this order; also after a restart. */
async function usedAfter(records: readonly Logged[], now: number): Promise<readonly number[]> {
  const folder = tempDir();
  const clock = createManualClock(now);
  const first = await openTestLedger(folder, clock);
  for (const record of records) first.follower.apply(record);
  const used = usedOf(first, limits);
  await first.close();
  const again = await openTestLedger(folder, clock);
  expect(usedOf(again, limits)).toEqual(used);
  await again.close();
  return used;
}

/** All orders of the records of several logs that keep the order of each. */
function* mixed(logs: readonly (readonly Logged[])[]): Iterable<readonly Logged[]> {
  if (logs.every((log) => log.length === 0)) yield [];
  for (const [index, [first, ...rest]] of logs.entries()) {
    if (first === undefined) continue;
    for (const order of mixed(logs.map((log, at) => (at === index ? rest : log)))) yield [first, ...order];
  }
}

describe("a group's account, whose members' records are in several logs", () => {
  it("counts each in the period of its time, whichever log is read first", async () => {
    const before = request("00", "anna", midnight - 100, 70);
    const after = request("01", "ben", midnight + 100, 500);
    for (const order of mixed([before, after]))
      expect(await usedAfter(order, midnight + 10_000)).toEqual([500, 570, 500, 570]);
  });

  it("forgets in a reset what was charged before it, and nothing else, whichever log is read first", async () => {
    const at = midnight - 7_200_000;
    const before = request("00", "anna", at - 100, 70);
    const after = request("01", "ben", at + 100, 500);
    const reset: Logged = { kind: "reset", at, user: "@red", per: "day", ...note, from: { log: "02.a", seq: 1 } };
    for (const order of mixed([before, after, [reset]]))
      expect(await usedAfter(order, at + 10_000)).toEqual([500, 570, 570, 570]);
  });

  it("leaves the new period alone where a reset of the one before comes late", async () => {
    const after = request("01", "ben", midnight + 100, 500);
    const reset: Logged = {
      ...{ kind: "reset", at: midnight - 50, user: "@red", per: "day", ...note },
      from: { log: "02.a", seq: 1 },
    };
    for (const order of mixed([after, [reset]]))
      expect(await usedAfter(order, midnight + 10_000)).toEqual([500, 500, 500, 500]);
  });

  it("counts what is much too early in the period that has begun: a clock was ahead", async () => {
    const ahead = request("01", "ben", midnight + 100, 500);
    const [early] = request("00", "anna", midnight - 86_400_000, 10);
    if (early === undefined) throw new Error("there is one");
    expect(await usedAfter([...ahead, early], midnight - 80_000_000)).toEqual([510, 510, 510, 510]);
  });
});
