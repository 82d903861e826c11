import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { describe, expect, it, onTestFinished } from "vitest";
import type { JournalPiece, JournalPosition } from "../../src/lib/journal/journal-stream.ts";
import { encodeLedgerRecord, type LedgerRecord } from "../../src/quota/memory/charge-record.ts";
import { MissingRecords, recordedUsage } from "../../src/quota/usage/recorded-usage.ts";
import { exportUsage } from "../../src/quota/usage/usage-export.ts";
import {
  largestOf,
  sumBySubjects,
  usageKeys,
  type UsageLine,
  type UsageSubject,
} from "../../src/quota/usage/usage-queries.ts";
import { createUsageSums } from "../../src/quota/usage/usage-sums.ts";
import { compileSrc } from "../support/compiled-src.ts";
import { fc } from "../support/fast-check.ts";
import { charge } from "../support/ledger.ts";
import { tempDir } from "../support/temp-dir.ts";

const timezone = "Asia/Shanghai";
const start = Date.parse("2026-10-31T12:00:00Z");
const hour = 3_600_000;
const days = { from: "2026-10-31", to: "2026-11-30" };
const dayOfStart = Date.parse("2026-10-30T16:00:00Z");

/** A journal that grows, and says how much of it was read. */
function createRecords() {
  const payloads: string[] = [];
  const damages = new Map<number, string>();
  let read = 0;
  return {
    add: (record: LedgerRecord) => payloads.push(encodeLedgerRecord(record)),
    damage: (message: string) => damages.set(payloads.length, message),
    read: () => read,
    async *recorded(after?: JournalPosition): AsyncGenerator<JournalPiece> {
      const end = payloads.length;
      await Promise.resolve();
      for (let index = after?.seq ?? 0; index < end; index++) {
        const message = damages.get(index);
        if (message !== undefined) yield { kind: "damage", path: "/x/1.journal", message };
        read++;
        yield { kind: "records", records: [{ seq: index + 1, payload: payloads[index] ?? "" }] };
      }
      yield { kind: "end", position: { file: "1", bytes: end, seq: end } };
    },
  };
}

function requestOf(index: number, names: { user: string; model: string; provider?: string; group?: string }) {
  const at = start + index * hour;
  const { group, ...rest } = names;
  const first = charge(1, 10, 20);
  return {
    at,
    requestId: `r${index}`,
    price: "p",
    first,
    charge: first,
    usage,
    ...rest,
    ...(group === undefined ? {} : { group: { name: group, at } }),
  };
}

const usage = { input: 7, cached: 2, output: 3, reasoning: 1 };

function settleOf(request: ReturnType<typeof requestOf>, final = charge(1, 30, 40)): LedgerRecord {
  const end = { settledAt: request.at + 1000, final, outcome: "completed", estimated: false } as const;
  return { kind: "settle", ...request, ...end };
}

async function reference(
  records: ReturnType<typeof createRecords>,
  user: string | undefined,
  by: readonly UsageSubject[],
) {
  const from = Date.parse(`${days.from}T00:00:00+08:00`);
  const lines: UsageLine[] = [];
  const items = exportUsage(records.recorded(), { from, user });
  for await (const line of sumBySubjects(recordedUsage(items, timezone), by)) lines.push(line);
  return lines;
}

const groupings: readonly (readonly UsageSubject[])[] = [
  ...Object.values(usageKeys),
  ...(["hour", "month"] as const).flatMap((per) =>
    (["group", "provider", "user", "key"] as const).map((one): readonly UsageSubject[] => [per, one]),
  ),
];

/** A program that sums by 2,000 users and 2,000 models, of which few have met. */
const largestOfMany = `
import { parentPort } from "node:worker_threads";
import { encodeLedgerRecord } from "./quota/memory/charge-record.js";
import { createUsageSums } from "./quota/usage/usage-sums.js";
const at = ${start};
const first = { requests: 1, tokens: 9, cost: 0, currency: "CNY" };
const usage = { input: 9, cached: 0, output: 0, reasoning: 0 };
const rest = { kind: "settle", at, settledAt: at, price: "", first, final: first, usage, outcome: "completed", estimated: false };
async function* recorded() {
  for (let index = 0; index < 2000; index++) {
    const payload = encodeLedgerRecord({ ...rest, user: "u" + index, model: "m" + index, requestId: "r" + index });
    yield { kind: "records", records: [{ seq: index + 1, payload }] };
  }
  yield { kind: "end", position: { file: "1", bytes: 0, seq: 2000 } };
}
const sums = createUsageSums({ recorded, timezone: "${timezone}" });
const lines = await sums.sum({ from: "${days.from}", to: "${days.to}", by: ["user", "model"], top: 10 }, ${dayOfStart});
await sums.close();
parentPort.postMessage(lines.length);
`;

describe("sums of what was recorded", () => {
  const step = fc.record({
    what: fc.constantFrom("request" as const, "late" as const, "lost" as const, "adjust" as const, "reset" as const),
    user: fc.constantFrom("alice", "bob", "cleo"),
    model: fc.constantFrom("a", "b"),
    provider: fc.constantFrom(undefined, "deep", "other"),
    group: fc.constantFrom(undefined, "red"),
    apiKey: fc.constantFrom(undefined, "k1"),
    currency: fc.constantFrom("CNY", "USD"),
    // Some are larger than a column of a cell holds.
    tokens: fc.oneof(fc.integer({ min: 0, max: 5000 }), fc.integer({ min: 0xffff_fff0, max: 2 ** 40 })),
    cost: fc.integer({ min: 0, max: 5000 }),
    outcome: fc.constantFrom("completed" as const, "client_gone" as const, "upstream_failed" as const),
    estimated: fc.boolean(),
    isAsked: fc.boolean(),
  });

  it("are those of the whole journal, whenever they are asked for", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), fc.integer({ min: 1, max: 5 }), async (steps, top) => {
        const records = createRecords();
        const sums = createUsageSums({ recorded: (after) => records.recorded(after), timezone });
        const late: LedgerRecord[] = [];
        for (const [index, { what, tokens, cost, currency, outcome, estimated, apiKey, ...names }] of steps.entries()) {
          const request = { ...requestOf(index, names as never), apiKey };
          const settled = settleOf(request, charge(1, tokens, cost, currency));
          const note = { reason: "why", by: "root" };
          if (what === "adjust") {
            const change = { added: charge(0, 0, cost, currency), taken: charge(1, 5, 0, currency) };
            records.add({
              kind: "adjust",
              at: request.at,
              user: index % 2 === 0 ? names.user : "@red",
              ...change,
              ...note,
            });
          } else if (what === "reset")
            records.add({ kind: "reset", at: request.at, user: names.user, per: "day", ...note });
          else {
            records.add({ kind: "charge", ...request });
            if (what === "request") records.add({ ...settled, outcome, estimated } as LedgerRecord);
            if (what === "late") late.push(settled);
          }
          if (names.user === "bob") for (const record of late.splice(0)) records.add(record);
          const isLast = index === steps.length - 1;
          if (!names.user.startsWith("a") && !isLast) continue;
          for (const by of isLast ? groupings : [["hour", "model"] as const]) {
            for (const user of [undefined, "alice"]) {
              const expected = await reference(records, user, by);
              expect(await sums.sum({ ...days, user, by }, dayOfStart), by.join()).toEqual(expected);
              const largest = (await sums.sum({ ...days, user, by, top }, dayOfStart)) ?? [];
              const shape = (lines: readonly UsageLine[]) =>
                lines.map(({ row, others }) => [row.tokens, others]).sort();
              expect(shape(largest), by.join()).toEqual(shape(largestOf(expected, by, top)));
            }
          }
        }
        await sums.close();
      }),
      { numRuns: 60 },
    );
  });

  it("name those that come first of many with as many tokens", async () => {
    const records = createRecords();
    const many = 9000;
    for (let index = 0; index < many; index++)
      records.add(
        settleOf({ ...requestOf(0, { user: `user${(index * 7919) % many}`, model: "a" }), requestId: `r${index}` }),
      );
    records.add(settleOf(requestOf(0, { user: "zoe", model: "a" }), charge(1, 31, 40)));
    const sums = createUsageSums({ recorded: (after) => records.recorded(after), timezone });
    const expected = largestOf(await reference(records, undefined, ["user"]), ["user"], 5);
    expect(expected.map(({ user }) => user)).toEqual(["user0", "user1", "user10", "user100", "zoe", undefined]);
    expect(await sums.sum({ ...days, by: ["user"], top: 5 }, dayOfStart)).toEqual(expected);
    await sums.close();
  });

  it("leave more models than they can tell apart to the journal, and find single requests all the same", async () => {
    const records = createRecords();
    const sums = createUsageSums({ recorded: (after) => records.recorded(after), timezone });
    for (let index = 0; index < 9000; index++) {
      records.add(settleOf({ ...requestOf(0, { user: "alice", model: `m${index}` }), requestId: `r${index}` }));
      if (index === 10) expect(await sums.sum({ ...days, by: ["day"] }, dayOfStart)).toHaveLength(1);
    }
    expect(await sums.find("alice", "r8999")).toMatchObject({ model: "m8999", tokens: 30 });
    expect(await sums.sum({ ...days, by: ["day"] }, dayOfStart)).toBeUndefined();
    expect(sums.isReady()).toBe(false);
    records.add(settleOf({ ...requestOf(0, { user: "bob", model: "a" }), requestId: "next" }));
    expect(await sums.find("bob", "next")).toMatchObject({ model: "a" });
    await sums.close();
  });

  it("need little memory for the largest of many combinations", async () => {
    const folder = tempDir();
    compileSrc(folder, ["lib", "quota"]);
    const program = join(folder, "program.js");
    writeFileSync(program, largestOfMany);
    const worker = new Worker(program, { resourceLimits: { maxOldGenerationSizeMb: 96 } });
    onTestFinished(async () => {
      await worker.terminate();
    });
    const [lines] = (await once(worker, "message")) as [number];
    expect(lines).toBe(11);
  });

  it("read only what is new", async () => {
    const records = createRecords();
    const sums = createUsageSums({ recorded: (after) => records.recorded(after), timezone });
    for (let index = 0; index < 50; index++) records.add(settleOf(requestOf(index, { user: "alice", model: "a" })));
    await sums.sum({ ...days, by: ["hour"] }, dayOfStart);
    records.add(settleOf(requestOf(50, { user: "bob", model: "a" })));
    // Two at once share a reading.
    const [byUser, byHour] = await Promise.all([
      sums.sum({ ...days, by: ["user"] }, dayOfStart),
      sums.sum({ ...days, by: ["hour"] }, dayOfStart),
    ]);
    expect(byUser?.map(({ user, row }) => [user, row.requests])).toEqual([
      ["alice", 50],
      ["bob", 1],
    ]);
    expect(byHour).toHaveLength(51);
    expect(records.read()).toBe(51);
    await sums.close();
  });

  it("leave to the journal what is older than they keep", async () => {
    const records = createRecords();
    const sums = createUsageSums({ recorded: (after) => records.recorded(after), timezone, maxCells: 1 });
    // Three chunks of cells, of which two are kept.
    for (let index = 0; index < 2 * 16_384 + 1; index++) {
      // Each has a cell of its own.
      const request = requestOf(0, { user: `user-${index}`, model: "a" });
      records.add(settleOf({ ...request, at: start + Math.floor(index / 16_384) * 240 * hour }));
    }
    const by = ["user"] as const;
    expect(await sums.sum({ ...days, by }, dayOfStart)).toBeUndefined();
    const late = await sums.sum({ from: "2026-11-20", to: "2026-11-30", by }, Date.parse("2026-11-19T16:00:00Z"));
    expect(late?.map(({ row }) => row.requests)).toEqual([1]);
    await sums.close();
  });

  it("are refused for times of which records are missing", async () => {
    const records = createRecords();
    const sums = createUsageSums({ recorded: (after) => records.recorded(after), timezone });
    records.add(settleOf(requestOf(1, { user: "alice", model: "a" })));
    records.damage("torn");
    records.add(settleOf(requestOf(48, { user: "alice", model: "a" })));
    records.add(settleOf(requestOf(96, { user: "alice", model: "a" })));
    await expect(sums.sum({ ...days, by: ["hour"] }, dayOfStart)).rejects.toThrow(MissingRecords);
    const lines = await sums.sum({ from: "2026-11-04", to: "2026-11-30", by: ["hour"] }, start + 90 * hour);
    expect(lines?.map(({ names }) => names?.hour)).toEqual(["2026-11-04T20:00:00+08:00"]);
    await sums.close();
  });
});
