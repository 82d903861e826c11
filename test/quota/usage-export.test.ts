import { cpSync, existsSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { JournalPiece } from "../../src/lib/journal/journal-stream.ts";
import type { Hold, RecordedPiece, UsageRow } from "../../src/quota/ledger.ts";
import { encodeLedgerRecord, type LedgerRecord } from "../../src/quota/memory/charge-record.ts";
import type { MemoryLedger } from "../../src/quota/memory/memory-ledger.ts";
import { type ExportedRow, type ExportItem, exportUsage } from "../../src/quota/usage/usage-export.ts";
import { exportText } from "../../src/quota/usage/usage-export-text.ts";
import { eventually } from "../support/eventually.ts";
import { fc } from "../support/fast-check.ts";
import { ask, charge, openTestLedger, settlement } from "../support/ledger.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { tempDir } from "../support/temp-dir.ts";

const now = Date.parse("2026-11-22T04:00:00Z");
const hour = 3_600_000;

async function itemsOf(items: AsyncIterable<ExportItem>) {
  const all: ExportItem[] = [];
  for await (const item of items) all.push(item);
  return {
    rows: all.flatMap((item) => (item.kind === "row" ? [item.row] : [])),
    problems: all.flatMap((item) => (item.kind === "problem" ? [item.message] : [])),
    end: all.at(-1),
  };
}

const from = { provider: "deep", price: "m@always 0/1/4/4" };

/** Figures by user, day and currency. */
type Sums = Map<string, number>;

function add(sums: Sums, key: string, figures: Readonly<Record<string, number>>): void {
  for (const [name, value] of Object.entries(figures))
    if (value !== 0) sums.set(`${key} ${name}`, (sums.get(`${key} ${name}`) ?? 0) + value);
}

function sumsOfRows(rows: readonly ExportedRow[]): Sums {
  const sums: Sums = new Map();
  for (const { kind, user, group, apiKey, at, usage, requests, tokens, cost, currency, outcome, estimated } of rows) {
    const day = new Date(at + 8 * hour).toISOString().slice(0, 10);
    const figures =
      kind === "request"
        ? {
            requests,
            tokens,
            ...usage,
            [currency]: cost,
            estimated: estimated ? 1 : 0,
            [outcome]: 1,
          }
        : { adjustedRequests: requests, adjustedTokens: tokens, [`adjusted${currency}`]: cost, [kind]: 1 };
    if (user !== "") add(sums, `${user} ${day}`, figures);
    // As the group's account has it, with the member in the place of the key.
    if (group !== "") add(sums, `@${group} ${day}`, figures);
    else if (apiKey !== "") add(sums, `${user}/${apiKey} ${day}`, figures);
  }
  return sums;
}

function sumsOfUsage(user: string, rows: readonly UsageRow[]): Sums {
  const sums: Sums = new Map();
  for (const { day, requests, tokens, input, cached, output, reasoning, cost, ...row } of rows) {
    add(sums, `${user} ${day}`, {
      requests,
      tokens,
      input,
      cached,
      output,
      reasoning,
      ...cost,
      estimated: row.estimated,
      unsettled: row.unsettled,
      ...row.outcomes,
      adjustedRequests: row.adjusted?.requests ?? 0,
      adjustedTokens: row.adjusted?.tokens ?? 0,
      ...Object.fromEntries(Object.entries(row.adjusted?.cost ?? {}).map(([cur, nano]) => [`adjusted${cur}`, nano])),
    });
  }
  return sums;
}

const sorted = (sums: Sums) => Object.fromEntries([...sums].sort(([a], [b]) => (a < b ? -1 : 1)));

describe("an export of usage", () => {
  const users = ["alice", "bob", "cleo"] as const;
  const days = { from: "2026-11-01", to: "2026-12-31" };
  const amount = fc.integer({ min: 0, max: 5_000_000 });
  const step = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        what: fc.constant("request" as const),
        user: fc.constantFrom(...users),
        model: fc.constantFrom("a", "b"),
        apiKey: fc.constantFrom(undefined, "k1"),
        group: fc.constantFrom(undefined, "red"),
        currency: fc.constantFrom("CNY", "USD"),
        first: amount,
        final: amount,
        outcome: fc.constantFrom("completed", "client_gone", "upstream_failed", "quota_cut", "none", "late"),
        estimated: fc.boolean(),
      }),
    },
    fc.record({
      what: fc.constant("adjust" as const),
      account: fc.constantFrom(...users, "@red"),
      cost: fc.integer({ min: -5000, max: 5000 }),
    }),
    fc.record({ what: fc.constant("reset" as const), account: fc.constantFrom(...users) }),
    fc.record({ what: fc.constantFrom("hours" as const, "restart" as const, "kill" as const, "settle" as const) }),
  );

  it("adds up to what the ledger has, for each user, group and day, whatever happens", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        let folder = tempDir();
        const clock = createManualClock(now);
        const storage = { segment_bytes: 1500, journal_archive_days: 400 };
        const open = () => openTestLedger(folder, clock, { storage });
        let ledger = await open();
        let late: { hold: Hold; cost: number; currency: string }[] = [];
        const settleLate = async () => {
          for (const { hold, cost, currency } of late) await hold.settle(settled(cost, currency, false));
          late = [];
        };
        let id = 0;
        for (const one of steps) {
          clock.advance(1 + (id % 3));
          if (one.what === "request") {
            const { first, final, outcome, currency, estimated, ...request } = one;
            const hold = ledger.reserve(
              ask({ ...request, limits: [], requestId: `r${id++ % 7}`, upperBound: charge(1) }),
            );
            await hold.commit(charge(1, first, 2 * first, currency), from);
            if (outcome === "none") continue;
            if (outcome === "late") late.push({ hold, cost: final, currency });
            else {
              const isFree = outcome === "upstream_failed";
              await hold.settle({ ...settled(isFree ? 0 : final, currency, estimated), outcome });
            }
          } else if (one.what === "adjust") {
            const delta = { requests: one.cost % 3, tokens: one.cost, cost: one.cost, currency: "CNY" };
            await ledger.adjust(one.account, delta, { reason: "a reason", by: "root" });
          } else if (one.what === "reset") await ledger.reset(one.account, "month", { reason: "why", by: "root" });
          else if (one.what === "hours") clock.advance(9 * hour);
          else if (one.what === "settle") await settleLate();
          else {
            if (one.what === "restart") {
              await settleLate();
              await ledger.close();
            } else {
              late = [];
              const copy = tempDir();
              cpSync(folder, copy, { recursive: true });
              folder = copy;
            }
            ledger = await open();
          }
        }
        const { rows, problems, end } = await itemsOf(exportUsage(ledger.recorded(), {}));
        expect(problems).toEqual([]);
        expect(end).toEqual({ kind: "end", rows: rows.length, complete: true, keptFrom: undefined });
        const expected: Sums = new Map();
        for (const user of [...users, "@red"]) {
          for (const [key, value] of sumsOfUsage(user, await ledger.usage({ user, ...days }))) expected.set(key, value);
        }
        const byAccount = new Map([...sumsOfRows(rows)].filter(([key]) => !key.includes("/")));
        expect(sorted(byAccount)).toEqual(sorted(expected));
        await ledger.close();
      }),
      { numRuns: 25 },
    );
  }, 60_000);

  function settled(cost: number, currency: string, estimated: boolean) {
    const isFree = cost === 0;
    return {
      ...settlement(charge(isFree ? 0 : 1, isFree ? 0 : 9, cost, currency)),
      estimated,
      ...from,
      usage: { input: 7, cached: 3, output: 2, reasoning: 1 },
    };
  }

  async function useLedger(): Promise<{ readonly folder: string; readonly ledger: MemoryLedger }> {
    const folder = tempDir();
    const clock = createManualClock(now);
    const ledger = await openTestLedger(folder, clock, { storage: { segment_bytes: 500, journal_archive_days: 9 } });
    const one = async (user: string, hours: number, more: object = {}, isSettled = true) => {
      clock.advance(hours * hour);
      const hold = ledger.reserve(ask({ user, limits: [], requestId: `${user}-${hours}`, ...more }));
      await hold.commit(charge(1, 7, 70), from);
      clock.advance(1000);
      if (isSettled) await hold.settle(settled(123, "CNY", false));
    };
    await one("alice", 0, { apiKey: "k1" });
    await one("alice", 1, { group: "red" }, false);
    await one("bob", 24, { model: "other" });
    await ledger.adjust("@red", { requests: 0, tokens: -5, cost: 0, currency: "CNY" }, { reason: "=1+1", by: "root" });
    await ledger.reset("bob", "day", { reason: "said, so", by: "root" });
    return { folder, ledger };
  }

  it("has a line for each request and each change, and what is asked for alone", async () => {
    const { ledger } = await useLedger();
    const ids = async (query: object) => {
      const { rows } = await itemsOf(exportUsage(ledger.recorded(), query));
      return rows.map(({ kind, requestId, outcome }) => `${kind} ${requestId || outcome}`.trim());
    };
    const all = ["request alice-0", "request bob-24", "adjust", "reset", "request alice-1"];
    expect(await ids({})).toEqual(all);
    expect(await ids({ user: "alice" })).toEqual(["request alice-0", "request alice-1"]);
    expect(await ids({ user: "bob" })).toEqual(["request bob-24", "reset"]);
    expect(await ids({ group: "red" })).toEqual(["adjust", "request alice-1"]);
    expect(await ids({ apiKey: "k1" })).toEqual(["request alice-0"]);
    expect(await ids({ model: "other" })).toEqual(["request bob-24"]);
    expect(await ids({ provider: "deep" })).toEqual(["request alice-0", "request bob-24", "request alice-1"]);
    expect(await ids({ provider: "none" })).toEqual([]);
    expect(await ids({ from: now + hour })).toEqual(all.slice(1));
    expect(await ids({ from: now, to: now + hour })).toEqual(["request alice-0"]);
  });

  it("is written as NDJSON and as CSV, whose last lines say that they are", async () => {
    const { ledger } = await useLedger();
    const textOf = async (format: "ndjson" | "csv"): Promise<string[]> => {
      let text = "";
      for await (const piece of exportText(exportUsage(ledger.recorded(), {}), format)) text += piece;
      return text.split(/\r?\n/);
    };
    const json = await textOf("ndjson");
    expect(JSON.parse(json[0] ?? "")).toEqual({
      kind: "request",
      request_id: "alice-0",
      user: "alice",
      group: null,
      key_id: "k1",
      model: "deepseek-chat",
      time: "2026-11-22T04:00:00.000Z",
      settled_at: "2026-11-22T04:00:01.000Z",
      provider: "deep",
      input_tokens: 7,
      cached_tokens: 3,
      output_tokens: 2,
      reasoning_tokens: 1,
      requests: 1,
      tokens: 9,
      price: from.price,
      cost: "0.000000123",
      cost_nano: 123,
      currency: "CNY",
      outcome: "completed",
      estimated: false,
    });
    expect(JSON.parse(json[2] ?? "")).toMatchObject({ kind: "adjust", user: null, group: "red", tokens: -5 });
    expect(JSON.parse(json[4] ?? "")).toMatchObject({
      outcome: "unsettled",
      settled_at: null,
      cost_nano: 70,
      tokens: 7,
    });
    expect(json.slice(5)).toEqual(['{"end":true,"rows":5,"complete":true,"kept_from":null}', ""]);
    const csv = await textOf("csv");
    const width = csv[0]?.split(",").length ?? 0;
    expect(csv[1]).toBe(
      "request,alice-0,2026-11-22T04:00:00.000Z,2026-11-22T04:00:01.000Z,alice,,k1,deepseek-chat,deep,7,3,2,1,1,9," +
        `${from.price},0.000000123,123,CNY,completed,0,,,`,
    );
    expect(csv[3]).toMatch(/^adjust,.*,'=1\+1,root$/);
    expect(csv[4]).toMatch(/^reset,.*,day,"said, so",root$/);
    expect(csv.slice(6)).toEqual([expect.stringMatching(/^end,.*,complete,,,5 rows,$/), ""]);
    for (const line of [csv[1], csv[3], csv[6]]) expect(line?.split(",")).toHaveLength(width);
  });

  it("says what is missing, where it may concern the span", async () => {
    const { folder, ledger } = await useLedger();
    await ledger.close();
    const archive = join(folder, "journal", "archive");
    const [first = ""] = readdirSync(archive).filter((name) => name.includes(".journal"));
    writeFileSync(join(archive, first), "damaged");
    const reopened = await openTestLedger(folder, createManualClock(now + 60 * hour), {
      storage: { journal_archive_days: 9 },
    });
    const { problems, end } = await itemsOf(exportUsage(reopened.recorded(), {}));
    expect(problems.join("\n")).toMatch(/damaged at byte 0/);
    expect(end).toMatchObject({ complete: false });
    expect(await itemsOf(exportUsage(reopened.recorded(), { from: now + 50 * hour }))).toMatchObject({
      problems: [],
      end: { complete: true },
    });
    // It is compressed once the archive is open, if that was not done before.
    const plain = first.replace(/\.gz$/, "");
    const compressed = join(archive, `${plain}.gz`);
    await eventually(() => {
      expect([existsSync(compressed), existsSync(join(archive, plain))]).toEqual([true, false]);
    });
    rmSync(compressed);
    const kept = await itemsOf(exportUsage(reopened.recorded(), {}));
    expect(kept).toMatchObject({ problems: [], end: { complete: true } });
    expect(kept.end).toHaveProperty("keptFrom", expect.any(Number));
    const early = await itemsOf(exportUsage(reopened.recorded(), { from: now }));
    expect(early.problems).toEqual([
      expect.stringMatching(/^of the time before 2026-11-\S+ not all records are kept$/),
    ]);
    await reopened.close();
  });

  it("goes on behind a record that makes no sense, and where reading fails", async () => {
    const record: LedgerRecord = { kind: "reset", at: now, user: "bob", per: "day", reason: "", by: "" };
    const payload = encodeLedgerRecord(record);
    async function* pieces(): AsyncGenerator<JournalPiece> {
      yield {
        kind: "records",
        records: [
          { seq: 1, payload: '["charge.99",1]' },
          { seq: 2, payload },
        ],
      };
      await Promise.resolve();
      throw new Error("EIO");
    }
    const { rows, problems, end } = await itemsOf(exportUsage(pieces(), {}));
    expect(rows).toHaveLength(1);
    expect(problems[0]).toMatch(/^record 1: written by a newer version/);
    expect(problems[1]).toBe("the journal cannot be read: EIO");
    expect(end).toMatchObject({ rows: 1, complete: false });
  });
});

describe("records that other processes have", () => {
  const recordOf = (at: number): LedgerRecord => ({ kind: "reset", at, user: "bob", per: "day", reason: "", by: "" });
  const later = now + hour;

  async function* pieces(isStart: boolean): AsyncGenerator<RecordedPiece> {
    await Promise.resolve();
    yield { kind: "records", records: [{ seq: 1, payload: encodeLedgerRecord(recordOf(now)) }] };
    yield { kind: "lack", isStart };
    yield { kind: "records", records: [{ seq: 2, payload: encodeLedgerRecord(recordOf(later)) }] };
  }

  it("make an export incomplete, whether its beginning is named or not", async () => {
    for (const isStart of [true, false]) {
      for (const query of [{}, { from: now }]) {
        const { rows, problems, end } = await itemsOf(exportUsage(pieces(isStart), query));
        expect(rows).toHaveLength(2);
        expect(problems).toEqual([expect.stringMatching(/ask (one that was there|another one)$/)]);
        expect(end).toMatchObject({ complete: false, keptFrom: isStart ? later : undefined });
      }
    }
  });

  it("are no problem where only later ones are asked for", async () => {
    for (const isStart of [true, false]) {
      const { rows, problems, end } = await itemsOf(exportUsage(pieces(isStart), { from: later + 1 }));
      expect([rows, problems]).toEqual([[], []]);
      expect(end).toMatchObject({ complete: true });
    }
  });
});
