import { describe, expect, it } from "vitest";
import { diskOps, type FileOps } from "../../src/lib/files/file-ops.ts";
import type { LedgerRecord, LogPosition } from "../../src/quota/memory/charge-record.ts";
import type { QuotaLimit } from "../../src/quota/ledger.ts";
import type { MemoryLedger } from "../../src/quota/memory/memory-ledger.ts";
import { charge, openTestLedger, settlement, usedOf } from "../support/ledger.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { tempDir } from "../support/temp-dir.ts";

const tokens: QuotaLimit[] = [{ metric: "tokens", per: "total", max: 1e12 }];
const at = Date.parse("2026-11-26T09:00:00Z");

/** The record with number `seq` of a tag's log: each one counts as many tokens as its number. */
function recordOf(tag: string, seq: number): LedgerRecord & { readonly from: LogPosition } {
  const request = { at, user: `user${tag}`, requestId: `r${seq}`, model: "m", group: { name: "red", at } };
  return { kind: "charge", ...request, charge: charge(1, seq), from: { log: `${tag}.a`, seq } };
}

const sumTo = (seq: number) => (seq * (seq + 1)) / 2;

/** The disk until the process dies: at the operation with this number, of whatever kind, and for all after it. */
function dyingDisk(diesAt: number): FileOps & { readonly operations: () => number } {
  let operations = 0;
  const ops = Object.fromEntries(
    Object.entries(diskOps).map(([name, operation]: [string, (...given: unknown[]) => unknown]) => [
      name,
      (...given: unknown[]) => {
        operations++;
        if (operations === diesAt && name === "writeSync") {
          const [fd, bytes, offset, length] = given as Parameters<FileOps["writeSync"]>;
          return diskOps.writeSync(fd, bytes, offset, length >> 1);
        }
        // Closing needs no disk, and leaves the test no open files.
        if (operations >= diesAt && !name.startsWith("close")) throw Object.assign(new Error("EIO"), { code: "EIO" });
        return operation(...given);
      },
    ]),
  ) as unknown as FileOps;
  return { ...ops, operations: () => operations };
}

const open = (folder: string, ops: FileOps = diskOps) =>
  openTestLedger(folder, createManualClock(at), {
    ops,
    storage: { segment_bytes: 400, snapshot_interval_seconds: 0.002, sync_interval_ms: 1 },
  });

/** Applies what is missing up to a number, from where the ledger says it is. */
async function follow({ follower }: MemoryLedger, upTo: number): Promise<void> {
  for (let seq = 1; seq <= upTo; seq++) {
    for (const tag of ["00", "01"])
      if (seq > (follower.positions.get(`${tag}.a`) ?? 0)) follower.apply(recordOf(tag, seq));
    if (seq % 2 === 0) await follower.synced();
  }
}

function expectExact(ledger: MemoryLedger): void {
  const positions = ["00", "01"].map((tag) => ledger.follower.positions.get(`${tag}.a`) ?? 0);
  expect(["user00", "user01"].flatMap((user) => usedOf(ledger, tokens, user))).toEqual(positions.map(sumTo));
  const ofGroup = usedOf(ledger, [{ ...tokens[0], group: "red" } as QuotaLimit]);
  expect(ofGroup).toEqual([positions.map(sumTo).reduce((a, b) => a + b)]);
}

describe("a ledger that follows the shared log", () => {
  it("knows how far it has counted after a crash at any operation of the disk", async () => {
    const whole = dyingDisk(Infinity);
    const first = await open(tempDir(), whole);
    await follow(first, 5);
    await first.close();
    expectExact(first);
    // Rounds of snapshots come by a timer, so the operations differ a little between runs: every second one will do.
    for (let diesAt = 1; diesAt <= whole.operations() + 10; diesAt += 2) {
      const folder = tempDir();
      try {
        const dying = await open(folder, dyingDisk(diesAt));
        await follow(dying, 5).finally(() => dying.close());
      } catch {
        // It has died.
      }
      const again = await open(folder);
      expectExact(again);
      await follow(again, 6);
      await again.close();
      const last = await open(folder);
      expect(last.follower.positions).toEqual(new Map([["00.a", 6], ["01.a", 6]])); // prettier-ignore
      expectExact(last);
      expect((await last.usage({ from: "2026-11-01", to: "2026-11-30" })).map((row) => row.tokens)).toEqual([
        2 * sumTo(6),
      ]);
      await last.close();
    }
  });

  it("remembers records that count nothing, and where the journal has gone", async () => {
    const folder = tempDir();
    const ledger = await open(folder);
    ledger.follower.apply(recordOf("00", 1));
    ledger.follower.pass({ log: "00.a", seq: 2 });
    ledger.follower.pass({ log: "05.a", seq: 7 });
    await ledger.close();
    const again = await open(folder);
    expect(again.follower.positions).toEqual(new Map([["00.a", 2], ["05.a", 7]])); // prettier-ignore
    expectExact({ ...again, follower: { ...again.follower, positions: new Map([["00.a", 1]]) } });
    await again.close();
  });

  it("keeps what it is told beside requests of its own", async () => {
    const ledger = await open(tempDir());
    ledger.follower.apply(recordOf("00", 1));
    const hold = ledger.reserve({
      user: "user00",
      limits: tokens,
      requestId: "own",
      model: "m",
      upperBound: charge(1, 9),
    });
    await hold.commit(charge(1, 2));
    await hold.settle(settlement(charge(1, 9)));
    expect(usedOf(ledger, tokens, "user00")).toEqual([10]);
    await ledger.close();
  });
});
