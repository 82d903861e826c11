import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import type { UsageRow } from "../../src/quota/ledger.ts";
import { fromKeptRow, keptRowSchema, toKeptRow } from "../../src/quota/usage/usage-row.ts";
import { ask, charge, openTestLedger, settlement, spend } from "../support/ledger.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { alicePassword, bearer, startProxy, userFile } from "../support/start-proxy.ts";
import { tempDir } from "../support/temp-dir.ts";

const allDays = { from: "2000-01-01", to: "2100-01-01" };
const note = { reason: "because", by: "the test" };

/** Writes a file as the version before wrote it: changes by hand stood where chats have their figures. */
function age(path: string): void {
  const text = readFileSync(path, "utf8");
  const aged = text
    .replace(/"adjusted":\{("requests":.*?"cost":\{.*?\})\}/g, "$1")
    .replace(
      /\n\[history\.models\.adjusted\]\n([^[]*?)\n\[history\.models\.adjusted\.cost\]/g,
      "$1\n[history.models.cost]",
    );
  expect(aged).not.toBe(text);
  expect(aged).not.toContain("adjusted");
  writeFileSync(path, aged);
}

describe("M12: a change by hand", () => {
  it("is told apart from what was used, in whatever rows are added up", async () => {
    const users = {
      alice: userFile("alice", alicePassword),
      boss: userFile("boss", alicePassword, 'roles = ["admin"]\n'),
    };
    const proxy = await startProxy({ users });
    onTestFinished(() => proxy.dispose());
    const hold = await proxy.services.ledger.reserve(ask({ upperBound: charge(1, 100, 200) }));
    await hold.commit(charge(1, 10, 20));
    await hold.settle(settlement(charge(1, 70, 123)));
    const headers = { ...bearer(await proxy.login("boss")), "content-type": "application/json" };
    const body = JSON.stringify({ requests: 7, tokens: -20, cost: "0.5", reason: "by phone" });
    await fetch(`${proxy.url}/admin/users/alice/quota/adjust`, { method: "POST", headers, body });
    for (const by of ["day", "user"]) {
      const answer = await fetch(`${proxy.url}/admin/usage?by=${by}`, { headers });
      expect(await answer.json()).toMatchObject({
        rows: [
          {
            requests: 1,
            tokens: 70,
            costs: [{ cost: "0.000000123", currency: "CNY" }],
            adjusted: { requests: 7, tokens: -20, costs: [{ cost: "0.5", currency: "CNY" }] },
            outcomes: { completed: 1, adjust: 1 },
          },
        ],
      });
    }
    const mine = await fetch(`${proxy.url}/auth/usage?by=model`, { headers: bearer(await proxy.login()) });
    expect(await mine.json()).toMatchObject({
      rows: [
        { model: "adjust", requests: 0, tokens: 0, costs: [], adjusted: { requests: 7 } },
        { model: "deepseek-chat", requests: 1, tokens: 70, adjusted: { requests: 0, tokens: 0, costs: [] } },
      ],
    });
  });

  it("is read from the files of the version before", async () => {
    const folder = tempDir();
    const clock = createManualClock(Date.parse("2026-11-22T04:00:00Z"));
    const ledger = await openTestLedger(folder, clock);
    await ledger.adjust("alice", charge(20, -500, 1000), note);
    await spend(ledger);
    clock.advance(86_400_000);
    await ledger.adjust("alice", charge(-1, 0, 5, "USD"), note);
    await ledger.close();
    const before = [await ledger.usage({ user: "alice", ...allDays }), await ledger.usage(allDays)];
    for (const name of ["alice.quota.toml", "usage/alice.jsonl", "usage/_totals.toml", "usage/_totals.jsonl"]) {
      age(join(folder, name));
    }
    const again = await openTestLedger(folder, clock);
    expect([await again.usage({ user: "alice", ...allDays }), await again.usage(allDays)]).toEqual(before);
    // The next one comes on top.
    await again.adjust("alice", charge(3), note);
    expect((await again.usage(allDays)).at(-1)).toMatchObject({ requests: 0, adjusted: { requests: 2 } });
  });

  it.each<readonly [string, Partial<UsageRow>]>([
    ["a change", { model: "adjust", adjusted: { requests: -3, tokens: 0, cost: { CNY: 7 } }, outcomes: { adjust: 1 } }],
    ["two that cancel out", { adjusted: { requests: 0, tokens: 0, cost: {} }, outcomes: { adjust: 2 } }],
    ["chats and a change", { requests: 2, outcomes: { completed: 2, adjust: 1 }, adjusted: null }],
    ["a reset", { outcomes: { reset: 1 } }],
    ["chats", { requests: 2, tokens: 9, input: 9, cost: { CNY: 9 }, outcomes: { completed: 2 } }],
  ])("is kept as it is: %s", (_, changes) => {
    const row: UsageRow = {
      day: "2026-11-22",
      model: "other",
      key: "",
      requests: 0,
      tokens: 0,
      input: 0,
      cached: 0,
      output: 0,
      reasoning: 0,
      cost: {},
      adjusted: null,
      outcomes: {},
      estimated: 0,
      unsettled: 0,
      ...changes,
    };
    expect(fromKeptRow(keptRowSchema.parse(JSON.parse(JSON.stringify(toKeptRow(row)))))).toEqual(row);
  });
});
