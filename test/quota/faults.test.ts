import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { AppError } from "../../src/errors.ts";
import type { QuotaLimit } from "../../src/quota/ledger.ts";
import type { MemoryLedger } from "../../src/quota/memory/memory-ledger.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { eventually } from "../support/eventually.ts";
import { createFaultyFiles, type Fault, type FaultyFiles, type FaultyKind } from "../support/faulty-files.ts";
import { ask, charge, monthly, openTestLedger, settlement, usedOf, type TestLedgerOptions } from "../support/ledger.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { tempDir } from "../support/temp-dir.ts";

const clock = createManualClock(Date.parse("2026-11-22T04:00:00Z"));
const limits: QuotaLimit[] = [monthly(500), { metric: "tokens", per: "total", max: 1e9 }];
const users = ["alice", "bob"];

interface Tally {
  /** Commits that were acknowledged, by user. */
  readonly acknowledged: Record<string, number>;
  /** Commits that were refused, by user. */
  readonly refused: Record<string, number>;
  readonly errors: unknown[];
}

async function spend(ledger: MemoryLedger, count: number, tally: Tally): Promise<void> {
  for (let i = 0; i < count; i++) {
    const user = users[i % users.length] ?? "";
    try {
      const hold = ledger.reserve(ask({ user, limits, upperBound: charge(1, 100) }));
      try {
        await hold.commit(charge(1, 10));
        tally.acknowledged[user] = (tally.acknowledged[user] ?? 0) + 1;
      } catch (error) {
        tally.refused[user] = (tally.refused[user] ?? 0) + 1;
        throw error;
      } finally {
        await hold.settle(settlement(charge(1, 70)));
      }
    } catch (error) {
      tally.errors.push(error);
    }
  }
}

/** A life of the ledger from open to close, with one fault in it. Returns what it says once it is closed. */
async function live(
  folder: string,
  ops: FaultyFiles,
  options: TestLedgerOptions,
  tally: Tally,
): Promise<number[] | undefined> {
  let ledger: MemoryLedger;
  try {
    ledger = await openTestLedger(folder, clock, { ops, ...options });
  } catch {
    return undefined;
  }
  await spend(ledger, 5, tally);
  clock.advance(2000);
  await spend(ledger, 5, tally);
  await ledger.close().catch(() => undefined);
  return users.flatMap((user) => usedOf(ledger, limits, user));
}

describe("the n-th operation that fails, for every n of a run", () => {
  const kinds: [FaultyKind, Fault][] = [
    ["write", "ENOSPC"],
    ["write", "short"],
    ["sync", "EIO"],
    ["rename", "EIO"],
    ["open", "ENOSPC"],
    ["truncate", "EIO"],
    ["unlink", "EIO"],
  ];
  const storage = { segment_bytes: 400, snapshot_interval_seconds: 1e6, sync_interval_ms: 1 };

  for (const durability of ["interval", "strict"] as const) {
    it.each(kinds)(
      `(%s with %s) costs no acknowledged charge and makes none up, ${durability}`,
      async (kind, fault) => {
        const probe = createFaultyFiles();
        await live(
          tempDir(),
          probe,
          { storage: { ...storage, durability } },
          { acknowledged: {}, refused: {}, errors: [] },
        );
        for (let nth = 1; nth <= probe.count(kind); nth++) {
          const folder = tempDir();
          const ops = createFaultyFiles();
          ops.fail(kind, fault, nth);
          const tally: Tally = { acknowledged: {}, refused: {}, errors: [] };
          const said = await live(folder, ops, { storage: { ...storage, durability } }, tally);
          for (const error of tally.errors) expect(error).toMatchObject({ code: "storage_unavailable", status: 503 });

          const recovered = await openTestLedger(folder, clock);
          if (said !== undefined) expect(users.flatMap((user) => usedOf(recovered, limits, user))).toEqual(said);
          for (const user of users) {
            const [requests = 0] = usedOf(recovered, limits, user);
            const acknowledged = tally.acknowledged[user] ?? 0;
            const unclear = durability === "strict" ? (tally.refused[user] ?? 0) : 0;
            expect(requests).toBeGreaterThanOrEqual(acknowledged);
            expect(requests).toBeLessThanOrEqual(acknowledged + unclear);
          }
          await recovered.close();
        }
      },
    );
  }
});

describe("a full disk", () => {
  it("stops new work until a record goes through again, asked once a second", async () => {
    const ops = createFaultyFiles();
    const ledger = await openTestLedger(tempDir(), clock, { ops });
    const hold = ledger.reserve(ask());
    ops.fail("write", "ENOSPC", 1, 2);
    expect(() => hold.commit(charge(1))).toThrow(AppError);
    await hold.settle(settlement(charge(1)));
    expect(usedOf(ledger)).toEqual([0]);
    expect(ledger.health()).toEqual({ ok: false, reason: expect.stringContaining("ENOSPC") as string });

    const writes = ops.count("write");
    expect(() => ledger.reserve(ask())).toThrow(expect.objectContaining({ code: "storage_unavailable" }) as Error);
    expect(ops.count("write")).toBe(writes);
    clock.advance(1000);
    expect(() => ledger.reserve(ask())).toThrow(AppError);
    expect(ops.count("write")).toBe(writes + 1);
    clock.advance(1000);
    await ledger.reserve(ask()).commit(charge(1));
    expect(ledger.health()).toEqual({ ok: true });
    expect(usedOf(ledger)).toEqual([1]);
  });

  it("at the settle leaves the first charge, frees the rest, and makes the final one once there is room", async () => {
    const folder = tempDir();
    const ops = createFaultyFiles();
    const ledger = await openTestLedger(folder, clock, { ops, repairIntervalMs: 1 });
    const hold = ledger.reserve(ask({ limits, upperBound: charge(1, 100) }));
    await hold.commit(charge(1, 10));
    ops.fail("write", "ENOSPC", 1, 3);
    expect(await hold.settle(settlement(charge(1, 70)))).toMatchObject([
      { used: 1, reserved: 0 },
      { used: 10, reserved: 0 },
    ]);
    expect(ledger.health().ok).toBe(false);
    await eventually(() => {
      expect(usedOf(ledger, limits)).toEqual([1, 70]);
    });
    expect(ledger.health().ok).toBe(true);
    expect(usedOf(await openTestLedger(folder, clock), limits)).toEqual([1, 70]);
  });

  it("that lasts to the end tells the operator which final charges are lost", async () => {
    const folder = tempDir();
    const ops = createFaultyFiles();
    const log = createCapturedLog();
    const ledger = await openTestLedger(folder, clock, { ops, log });
    const hold = ledger.reserve(ask({ limits, upperBound: charge(1, 100) }));
    await hold.commit(charge(1, 10));
    ops.fail("write", "ENOSPC", 1, 1000);
    await hold.settle(settlement(charge(1, 70)));
    await expect(ledger.close()).rejects.toThrow("1 final charges could not be written");
    expect(log.lines.filter(({ level }) => level === "error")).toMatchObject([
      { facts: { user: "alice", requestId: "req-1", charge: { tokens: 70 } } },
    ]);
    expect(usedOf(await openTestLedger(folder, clock), limits)).toEqual([1, 10]);
  });

  it("keeps the old snapshot and the journal, and writes both again later", async () => {
    const folder = tempDir();
    const ops = createFaultyFiles();
    const log = createCapturedLog();
    const ledger = await openTestLedger(folder, clock, { ops, log });
    await ledger.reserve(ask()).commit(charge(1));
    ops.fail("rename", "ENOSPC");
    await ledger.close();
    expect(log.lines).toMatchObject([{ level: "warn", message: expect.stringContaining("trying again") as string }]);
    expect(usedOf(await openTestLedger(folder, clock))).toEqual([1]);
  });
});

describe("a failed sync", () => {
  const strict = { durability: "strict" } as const;

  it("ends all billable work, and is made up for with snapshots and a new file", async () => {
    const folder = tempDir();
    const ops = createFaultyFiles();
    const log = createCapturedLog();
    const ledger = await openTestLedger(folder, clock, { ops, log, storage: strict, repairIntervalMs: 5 });
    await ledger.reserve(ask({ user: "bob" })).commit(charge(1));
    const [file = ""] = readdirSync(join(folder, "journal"));
    ops.fail("sync", "EIO", 1, 4);
    const hold = ledger.reserve(ask({ limits }));
    await expect(hold.commit(charge(1, 10))).rejects.toMatchObject({ code: "storage_unavailable" });
    await hold.settle(settlement(charge(0), "upstream_failed"));
    expect(() => ledger.reserve(ask())).toThrow(expect.objectContaining({ code: "storage_unavailable" }) as Error);
    expect(ledger.health()).toEqual({ ok: false, reason: expect.stringContaining("EIO") as string });
    await eventually(() => {
      expect(ledger.health()).toEqual({ ok: true });
      expect(usedOf(ledger, limits)).toEqual([0, 0]);
    });
    expect(readdirSync(join(folder, "journal"))).not.toContain(file);
    expect(log.lines.map(({ facts }) => facts.event)).toContain("journal_repaired");
    await ledger.reserve(ask({ user: "bob" })).commit(charge(1));
    // As after a crash: nothing is closed.
    const recovered = await openTestLedger(folder, clock);
    expect(usedOf(recovered, limits)).toEqual([0, 0]);
    expect(usedOf(recovered, [monthly(500)], "bob")).toEqual([2]);
    await ledger.close();
  });

  it("ends it until a restart where a user's file can't be used, for then the journal may not go", async () => {
    const folder = tempDir();
    writeFileSync(join(folder, "carol.quota.toml"), "nothing of the kind");
    const ops = createFaultyFiles();
    const ledger = await openTestLedger(folder, clock, { ops, storage: strict, repairIntervalMs: 1 });
    ops.fail("sync", "EIO");
    await expect(ledger.reserve(ask()).commit(charge(1))).rejects.toMatchObject({ code: "storage_unavailable" });
    await expect(ledger.close()).rejects.toThrow("EIO");
    expect(usedOf(await openTestLedger(folder, clock))).toEqual([1]);
  });
});

describe("half a record that can't be cut away", () => {
  it("goes with its file, and a restart at any time counts what was acknowledged", async () => {
    const folder = tempDir();
    const ops = createFaultyFiles();
    const ledger = await openTestLedger(folder, clock, { ops, repairIntervalMs: 5 });
    await ledger.reserve(ask()).commit(charge(1));
    ops.fail("write", "short");
    ops.fail("truncate", "EIO");
    expect(() => ledger.reserve(ask()).commit(charge(1))).toThrow(AppError);
    await eventually(() => {
      expect(ledger.health()).toEqual({ ok: true });
    });
    await ledger.reserve(ask()).commit(charge(1));
    expect(usedOf(ledger)).toEqual([2]);
    expect(usedOf(await openTestLedger(folder, clock))).toEqual([2]);
    await ledger.close();
  });
});

describe("durability", () => {
  it("`strict` acknowledges a charge when it is on disk", async () => {
    const ops = createFaultyFiles();
    const ledger = await openTestLedger(tempDir(), clock, { ops, storage: { durability: "strict" } });
    const before = ops.count("sync");
    const committed = ledger.reserve(ask()).commit(charge(1));
    expect(committed).toBeInstanceOf(Promise);
    expect(ledger.stats().lagRecords).toBe(1);
    await committed;
    expect(ledger.stats()).toMatchObject({ lagRecords: 0, lagBytes: 0 });
    expect(ops.count("sync")).toBeGreaterThan(before);
  });

  it("`interval` acknowledges it when the kernel has it, without a promise", async () => {
    const ledger = await openTestLedger(tempDir(), clock);
    expect(ledger.reserve(ask()).commit(charge(1))).not.toBeInstanceOf(Promise);
    expect(ledger.stats()).toMatchObject({ lagRecords: 1, pending: 2 });
  });
});
