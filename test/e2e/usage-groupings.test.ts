import { afterEach, expect, it } from "vitest";
import { systemClock } from "../../src/lib/clock.ts";
import { parseNano } from "../../src/lib/money.ts";
import { expectRefusal, answerOf } from "../support/refusals.ts";
import { alicePassword, bearer, post, startProxy, userFile, type RunningProxy } from "../support/start-proxy.ts";

const hourMs = 3_600_000;
const settings = `[[models.prices]]
models = ["*"]
currency = "CNY"
cache_hit = 0.3
cache_miss = 1.1
output = 3.7
[auth]
login_reuse_seconds = 0
[groups.team]
members = ["bob"]
`;

interface Row extends Readonly<Record<string, unknown>> {
  readonly requests: number;
  readonly tokens: number;
  readonly costs: readonly Cost[];
  readonly adjusted: { readonly requests: number; readonly costs: readonly Cost[] };
  readonly outcomes: Readonly<Record<string, number>>;
}

interface Cost {
  readonly cost: string;
  readonly currency: string;
}

let proxy: RunningProxy | undefined;

afterEach(() => proxy?.dispose());

function nanoOf(costs: readonly Cost[]): number {
  return costs.reduce((sum, { cost }) => sum + (cost.startsWith("-") ? -parseNano(cost.slice(1)) : parseNano(cost)), 0);
}

function totalOf(rows: readonly Row[]) {
  const sum = (of: (row: Row) => number): number => rows.reduce((all, row) => all + of(row), 0);
  return {
    requests: sum(({ requests }) => requests),
    tokens: sum(({ tokens }) => tokens),
    nano: sum(({ costs }) => nanoOf(costs)),
    adjusted: sum(({ adjusted }) => adjusted.requests),
    adjustedNano: sum(({ adjusted }) => nanoOf(adjusted.costs)),
    completed: sum(({ outcomes }) => outcomes.completed ?? 0),
    adjustments: sum(({ outcomes }) => outcomes.adjust ?? 0),
  };
}

it("has the same exact total however it is grouped", async () => {
  // 23:30 on the last day of a month in Shanghai.
  let now = Date.parse("2026-10-31T15:30:00Z");
  const users = {
    alice: userFile("alice", alicePassword),
    bob: userFile("bob", alicePassword, 'default_group = "team"\n'),
    boss: userFile("boss", alicePassword, 'roles = ["admin"]\n'),
  };
  const running = (proxy = await startProxy({
    config: settings,
    users,
    clock: { now: () => now, monotonic: systemClock.monotonic },
  }));
  const { url } = running;
  const chat = async (user: string, model: string): Promise<void> => {
    const body = { model, stream: false, messages: [{ role: "user", content: "hi" }] };
    const answer = await post(`${url}/chat/completions`, body, bearer(await running.login(user)));
    expect(answer.status).toBe(200);
    await answer.text();
  };
  await chat("alice", "sim-fast");
  await chat("bob", "sim-fast");
  now += hourMs;
  await chat("alice", "sim-no-usage");
  await chat("bob", "sim-fast");
  const token = bearer(await running.login("boss"));
  const change = { requests: -3, cost: "-0.000000007", currency: "CNY", reason: "a mistake" };
  expect((await post(`${url}/admin/users/alice/quota/adjust`, change, token)).status).toBe(200);

  const usage = async (query: string): Promise<readonly Row[]> => {
    const answer = await fetch(`${url}/admin/usage?from=2026-10-31&to=2026-11-01&${query}`, { headers: token });
    expect(answer.status, query).toBe(200);
    return ((await answer.json()) as { rows: Row[] }).rows;
  };
  const total = totalOf(await usage("by=day"));
  expect(total).toMatchObject({ requests: 4, completed: 4, adjustments: 1 });
  expect(total.nano).toBeGreaterThan(0);
  const all = ["day", "month", "hour", "model", "key", "both", "user", "all", "group", "provider"];
  for (const by of all) {
    for (const per of ["", "&per=hour", "&per=day", "&per=month"])
      expect(totalOf(await usage(`by=${by}${per}`)), by + per).toEqual(total);
  }

  const names = (rows: readonly Row[], ...keys: readonly string[]) =>
    rows.map((row) => [...keys.map((key) => row[key]), row.requests]);
  expect(names(await usage("by=month"), "month")).toEqual([
    ["2026-10", 2],
    ["2026-11", 2],
  ]);
  expect(names(await usage("by=group"), "group")).toEqual([
    ["", 2],
    ["team", 2],
  ]);
  expect(names(await usage("by=hour&user=bob"), "hour")).toEqual([
    ["2026-10-31T23:00:00+08:00", 1],
    ["2026-11-01T00:00:00+08:00", 1],
  ]);
  expect(names(await usage("by=provider&per=month"), "month", "provider")).toEqual([
    ["2026-10", "simulator", 2],
    // What was changed by hand.
    ["2026-11", "", 0],
    ["2026-11", "simulator", 2],
  ]);
  const mine = await fetch(`${url}/auth/usage?by=month`, { headers: bearer(await running.login("alice")) });
  expect(names(((await mine.json()) as { rows: Row[] }).rows, "month")).toEqual([
    ["2026-10", 1],
    ["2026-11", 1],
  ]);
  const csv = await fetch(`${url}/admin/usage?by=group&per=day&format=csv`, { headers: token });
  const [head = "", ...lines] = (await csv.text()).trim().split("\n");
  expect(head.trim().split(",").slice(-1)).toEqual(["group"]);
  expect(lines.map((line) => [line.split(",")[1], line.trim().split(",").at(-1)])).toEqual([
    ["2026-10-31", ""],
    ["2026-10-31", "team"],
    ["2026-11-01", ""],
    ["2026-11-01", "team"],
  ]);
  const refused = await fetch(`${url}/admin/usage?by=week`, { headers: token });
  expectRefusal(running, await answerOf(refused), "invalid_request", "by");
});
