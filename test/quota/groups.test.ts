import { copyFileSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { AppError } from "../../src/errors.ts";
import type { Hold, QuotaLimit, ReserveRequest } from "../../src/quota/ledger.ts";
import { decodeLedgerRecord, encodeLedgerRecord } from "../../src/quota/memory/charge-record.ts";
import { createFaultyFiles } from "../support/faulty-files.ts";
import { eventually } from "../support/eventually.ts";
import { ask, charge, monthly, openTestLedger, settlement, usedOf, type TestLedgerOptions } from "../support/ledger.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { tempDir } from "../support/temp-dir.ts";

const ofGroup = (max: number, group = "red"): QuotaLimit => ({ ...monthly(max), group });
const within = (max: number, changes: Partial<ReserveRequest> = {}): ReserveRequest =>
  ask({ limits: [monthly(500), ofGroup(max)], group: "red", ...changes });
const allDays = { from: "2026-01-01", to: "2027-01-01" };
const note = { reason: "because", by: "the test" };

function setUp(options: TestLedgerOptions = {}) {
  const dir = tempDir();
  const clock = createManualClock(Date.parse("2026-11-10T10:00:00+08:00"));
  const open = (more: TestLedgerOptions = {}) => openTestLedger(dir, clock, { ...options, ...more });
  const journal = (): string => {
    const folder = join(dir, "journal");
    const files = readdirSync(folder).filter((name) => name.endsWith(".journal"));
    return files.map((name) => readFileSync(join(folder, name), "utf8")).join("");
  };
  return { dir, clock, open, journal };
}

type TestLedger = Awaited<ReturnType<typeof openTestLedger>>;

async function use(ledger: TestLedger, changes: Partial<ReserveRequest> = {}): Promise<void> {
  const hold = ledger.reserve(within(100, { upperBound: charge(1, 100, 200), ...changes }));
  await hold.commit(charge(1, 10, 20));
  await hold.settle(settlement(charge(1, 70, 123)));
}

describe("the limits of a group", () => {
  it("count what all members use in it, within what each may use", async () => {
    const { open } = setUp();
    const ledger = await open();
    await use(ledger);
    await use(ledger, { user: "bob" });
    await use(ledger, { user: "bob", group: undefined, limits: [monthly(500)] });
    await use(ledger, { user: "bob", group: "blue", limits: [monthly(500), ofGroup(9, "blue")] });
    const limits = [monthly(500), ofGroup(2), ofGroup(9, "blue")];
    expect(usedOf(ledger, limits)).toEqual([1, 2, 1]);
    expect(usedOf(ledger, limits, "bob")).toEqual([3, 2, 1]);
    expect(() => ledger.reserve(within(2))).toThrow(
      expect.objectContaining({
        code: "quota_exceeded",
        message: expect.stringContaining("2 of 2 requests this month are used by the group red") as string,
        extras: expect.objectContaining({
          details: expect.objectContaining({ group: "red", used: 2, limit: 2 }) as unknown,
        }) as unknown,
      }),
    );
  });

  it("are taken together with the user's, or not at all", async () => {
    const { open } = setUp();
    const ledger = await open();
    const limits = [monthly(1), ofGroup(2)];
    const first = ledger.reserve(within(2, { limits }));
    expect(() => ledger.reserve(within(2, { limits }))).toThrow("This one may need 1");
    expect(ledger.buckets("alice", limits)).toMatchObject([{ reserved: 1 }, { reserved: 1 }]);
    ledger.reserve(within(2, { user: "bob" }));
    expect(() => ledger.reserve(within(2, { user: "carol" }))).toThrow("by the group red, 2 more held");
    expect(ledger.buckets("carol", [monthly(1)])).toMatchObject([{ reserved: 0, used: 0 }]);
    expect(first.grow(charge(1))).toMatchObject({ limit: { metric: "requests" } });
    await first.settle(settlement(charge(0)));
    expect(ledger.buckets("alice", limits)).toMatchObject([{ reserved: 0 }, { reserved: 1 }]);
  });

  it("give the last unit to exactly one of 200 requests by 20 members, through keys or not", async () => {
    const { open, dir } = setUp();
    const ledger = await open();
    await use(ledger, { user: "zoe" });
    const outcomes = await Promise.all(
      Array.from({ length: 200 }, async (_none, index): Promise<Hold | string> => {
        // Some come later, while others are charged and settled.
        for (let turns = index % 7; turns > 0; turns--) await Promise.resolve();
        const apiKey = index % 3 === 0 ? `key-${index % 20}` : undefined;
        try {
          const hold = ledger.reserve(within(2, { user: `user-${index % 20}`, requestId: `req-${index}`, apiKey }));
          await hold.commit(charge(1));
          await hold.settle(settlement(charge(1)));
          return hold;
        } catch (error) {
          return error instanceof AppError ? error.code : String(error);
        }
      }),
    );
    expect(outcomes.filter((one) => typeof one !== "string")).toHaveLength(1);
    expect(outcomes.filter((one) => one === "quota_exceeded")).toHaveLength(199);
    expect(usedOf(ledger, [ofGroup(2)])).toEqual([2]);
    await ledger.close();
    expect(readdirSync(dir)).toContain("@red.quota.toml");
  });

  it("can be changed by hand without any user's, and begin anew", async () => {
    const { open } = setUp();
    const ledger = await open();
    await use(ledger);
    await ledger.adjust("@red", { requests: 5, tokens: 0, cost: 0, currency: "CNY" }, note);
    expect(usedOf(ledger, [monthly(500), ofGroup(9)])).toEqual([1, 6]);
    await ledger.reset("alice", "month", note);
    expect(usedOf(ledger, [monthly(500), ofGroup(9)])).toEqual([0, 6]);
    await ledger.reset("@red", "month", note);
    await use(ledger);
    const expected = [1, 1];
    expect(usedOf(ledger, [monthly(500), ofGroup(9)])).toEqual(expected);
    const [chats, manual] = await ledger.usage(allDays);
    expect(chats).toMatchObject({ model: "adjust", adjusted: null, outcomes: { reset: 1 } });
    expect(manual).toMatchObject({ requests: 2, adjusted: null });
    await ledger.close();
    expect(usedOf(await open(), [monthly(500), ofGroup(9)])).toEqual(expected);
  });

  it("are settled in the period of their charge, though the clock has stepped back behind a reset of the group", async () => {
    const { open, clock } = setUp();
    const ledger = await open();
    await ledger.reset("@red", "day", note);
    clock.advance(-3_600_000);
    const limits: QuotaLimit[] = [
      { metric: "tokens", per: "day", max: 1000 },
      { metric: "tokens", per: "day", max: 1000, group: "red" },
    ];
    await use(ledger, { limits });
    expect(usedOf(ledger, limits)).toEqual([70, 70]);
    await ledger.close();
    expect(usedOf(await open(), limits)).toEqual([70, 70]);
  });
});

describe("the usage of a group", () => {
  it("is that of each member in it, apart from the users' own and the totals", async () => {
    const { open } = setUp();
    const ledger = await open();
    await use(ledger, { apiKey: "key-1" });
    await use(ledger, { user: "bob" });
    await use(ledger, { user: "bob", group: undefined, limits: [] });
    const rows = await ledger.usage({ user: "@red", ...allDays });
    expect(rows.map(({ key, requests, tokens }) => [key, requests, tokens])).toEqual([
      ["alice", 1, 70],
      ["bob", 1, 70],
    ]);
    expect(await ledger.usage(allDays)).toMatchObject([{ requests: 3, tokens: 210 }]);
    const users: string[] = [];
    for await (const { user } of ledger.usageOfAll(allDays)) users.push(user);
    expect(users).toEqual(["alice", "bob"]);
  });

  it("tells 1000 members apart on a day, also after a restart in the middle of it", async () => {
    const { open } = setUp();
    let ledger = await open();
    for (let member = 0; member < 400; member++) await use(ledger, { user: `user-${member}`, limits: [] });
    await ledger.close();
    ledger = await open();
    for (let member = 400; member < 1001; member++) await use(ledger, { user: `user-${member}`, limits: [] });
    const rows = await ledger.usage({ user: "@red", ...allDays });
    expect(rows.filter(({ key }) => key !== "")).toHaveLength(1000);
    expect(rows.reduce((sum, { tokens }) => sum + tokens, 0)).toBe(1001 * 70);
  });

  it("is complete after a start without the file of totals, which is about users alone", async () => {
    const { open, dir } = setUp();
    const ledger = await open();
    await use(ledger);
    await ledger.adjust("@red", { requests: 5, tokens: 0, cost: 0, currency: "CNY" }, note);
    await ledger.close();
    writeFileSync(join(dir, "usage", "_totals.toml"), "not TOML");
    const again = await open();
    expect(await again.usage(allDays)).toMatchObject([{ requests: 1, tokens: 70, adjusted: null }]);
  });
});

describe("recovery with groups", () => {
  it.each(["@red", "alice"])(
    "counts a record in each account once, though the snapshot of %s is older",
    async (old) => {
      const { open, dir } = setUp();
      const limits = [monthly(500), ofGroup(100)];
      const file = join(dir, `${old}.quota.toml`);
      const ledger = await open();
      await use(ledger);
      await ledger.close();
      copyFileSync(file, `${file}.old`);
      // The journal is kept, as it would be if the crash had come between the two snapshots.
      const ops = createFaultyFiles();
      ops.fail("unlink", "EIO", 1, 1e9);
      const second = await open({ ops });
      await use(second);
      await use(second, { user: "bob" });
      await second.close();
      copyFileSync(`${file}.old`, file);
      const third = await open();
      expect(usedOf(third, limits)).toEqual([2, 3]);
      expect(usedOf(third, limits, "bob")).toEqual([1, 3]);
      expect((await third.usage({ user: "@red", ...allDays })).map(({ requests }) => requests)).toEqual([2, 1]);
    },
  );

  it("keeps a journal file until the snapshot of the group has what is in it", async () => {
    const { open, dir, journal } = setUp({ storage: { segment_bytes: 4096 } });
    const ledger = await open();
    for (let count = 0; count < 40; count++) await use(ledger);
    await ledger.close();
    // Most files are gone, and so all of it must be in the snapshots.
    expect(journal().match(/"charge\.2"/g)?.length ?? 0).toBeLessThan(20);
    expect(readFileSync(join(dir, "@red.quota.toml"), "utf8")).toContain('username = "@red"');
    expect(usedOf(await open(), [monthly(500), ofGroup(100)])).toEqual([40, 40]);
  });

  it("refuses what concerns a group whose file is damaged, and nothing else", async () => {
    const { open, dir } = setUp();
    const ledger = await open();
    await use(ledger);
    await ledger.close();
    writeFileSync(join(dir, "@red.quota.toml"), "damaged");
    const again = await open();
    expect(again.problems()).toMatchObject([{ file: "@red.quota.toml" }]);
    expect(() => again.reserve(within(100))).toThrow("What the group red has used cannot be read");
    expect(again.buckets("alice", [monthly(500)])).toMatchObject([{ used: 1, reserved: 0 }]);
    await use(again, { group: undefined, limits: [monthly(500)] });
    expect(usedOf(again)).toEqual([2]);
  });

  it("writes a settlement that came while the disk was full in both accounts or in neither", async () => {
    const { open } = setUp({ repairIntervalMs: 1 });
    const ops = createFaultyFiles();
    const ledger = await open({ ops });
    const limits: QuotaLimit[] = [
      { metric: "tokens", per: "month", max: 1000 },
      { metric: "tokens", per: "month", max: 1000, group: "red" },
    ];
    const hold = ledger.reserve(within(100, { upperBound: charge(1, 100, 200), limits }));
    await hold.commit(charge(1, 10, 20));
    ops.fail("write", "ENOSPC", 1, 1);
    await hold.settle(settlement(charge(1, 70, 123)));
    expect(usedOf(ledger, limits)).toEqual([10, 10]);
    await eventually(() => {
      expect(usedOf(ledger, limits)).toEqual([70, 70]);
    });
  });
});

describe("the records of groups", () => {
  it("are of version 2, and all others stay as they were", async () => {
    const { open, journal } = setUp();
    const ledger = await open();
    await use(ledger, { group: undefined, limits: [], apiKey: "key-1" });
    await ledger.reset("alice", "day", note);
    await use(ledger);
    await use(ledger, { apiKey: "key-1" });
    await ledger.reset("@red", "day", note);
    await ledger.close();
    const at = 1762740000000 + 31_536_000_000;
    const lines = journal().split("\n").slice(1, -1);
    expect(lines.map((line) => line.replace(/^\S+ \d+ /, ""))).toEqual([
      `["charge",${at},"alice","req-1","deepseek-chat",1,10,20,"CNY","key-1"]`,
      `["settle",${at},"alice","req-1","deepseek-chat",1,10,20,"CNY",1,70,123,"CNY",70,0,0,0,"completed",0,${at},"","key-1"]`,
      `["reset",${at},"alice","day","because","the test"]`,
      `["charge.2",${at + 1},"alice","req-1","deepseek-chat",1,10,20,"CNY","","red",${at}]`,
      `["settle.2",${at + 1},"alice","req-1","deepseek-chat",1,10,20,"CNY",1,70,123,"CNY",70,0,0,0,"completed",0,${at + 1},"","","red",${at}]`,
      `["charge.2",${at + 1},"alice","req-1","deepseek-chat",1,10,20,"CNY","key-1","red",${at}]`,
      `["settle.2",${at + 1},"alice","req-1","deepseek-chat",1,10,20,"CNY",1,70,123,"CNY",70,0,0,0,"completed",0,${at + 1},"","key-1","red",${at}]`,
      `["reset.2",${at},"@red","day","because","the test"]`,
    ]);
    for (const line of lines) {
      const payload = line.replace(/^\S+ \d+ /, "");
      const record = decodeLedgerRecord(payload);
      expect(record === undefined ? "" : encodeLedgerRecord(record)).toBe(payload);
    }
  });

  it.each([
    ["a change of a group by a record of version 1", `["reset",1,"@red","day","",""]`, "is no user name"],
    ["a request of a group", `["charge.2",1,"@red","r","m",1,0,0,"CNY"]`, "is no user name"],
    ["a group behind an @", `["charge.2",1,"alice","r","m",1,0,0,"CNY","","@red",1]`, "is no name of a group"],
    ["a group without a time", `["charge.2",1,"alice","r","m",1,0,0,"CNY","","red"]`, "column"],
    ["a group in version 1", `["charge",1,"alice","r","m",1,0,0,"CNY","","red",1]`, "column"],
    [
      "a record of the shared log without its place there",
      `["charge.3",1,"alice","r","m",1,0,0,"CNY","","",0]`,
      "column",
    ],
    ["a version to come", `["charge.5",1,"alice","r","m",1,0,0,"CNY"]`, "its format is 5"],
  ])("refuse %s", (_name, payload, message) => {
    expect(() => decodeLedgerRecord(payload)).toThrow(message);
  });
});
