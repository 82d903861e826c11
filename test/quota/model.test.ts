import { rmSync } from "node:fs";
import { fc } from "../support/fast-check.ts";
import { describe, expect, it } from "vitest";
import { AppError } from "../../src/errors.ts";
import type { Charge, Hold, QuotaLimit, UsageRow } from "../../src/quota/ledger.ts";
import type { MemoryLedger } from "../../src/quota/memory/memory-ledger.ts";
import { createFaultyFiles, type FaultyFiles } from "../support/faulty-files.ts";
import { ask, charge, openTestLedger, settlement } from "../support/ledger.ts";
import { inGroup, LedgerModel, minus, periodKey, type Source } from "../support/ledger-model.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { tempDir } from "../support/temp-dir.ts";

const dayMs = 86_400_000;
const users = ["alice", "bob"];
const allDays = { from: "2000-01-01", to: "2100-01-01" };
const limits: QuotaLimit[] = [
  { metric: "requests", per: "day", max: 5 },
  { metric: "tokens", per: "week", max: 2000 },
  { metric: "requests", per: "month", max: 20 },
  { metric: "cost", per: "month", max: 5000, currency: "CNY" },
  { metric: "cost", per: "total", max: 20_000, currency: "USD" },
];
/** Narrower than the users' limits, so that they refuse as well. */
const keyLimits: Readonly<Record<string, QuotaLimit[]>> = Object.fromEntries(
  ["key-1", "key-2"].map((apiKey) => [apiKey, [{ metric: "requests", per: "day", max: 2, apiKey }]]),
);
/** For the members together; each may use more alone. */
const groupLimits: Readonly<Record<string, QuotaLimit[]>> = {
  red: [
    { metric: "requests", per: "day", max: 3, group: "red" },
    { metric: "cost", per: "week", max: 1500, currency: "CNY", group: "red" },
  ],
  blue: [{ metric: "tokens", per: "total", max: 1200, group: "blue" }],
};
const groups = Object.keys(groupLimits);
const limitsOf = ({ apiKey = "", group = "" }: Source): readonly QuotaLimit[] => [
  ...limits,
  ...(keyLimits[apiKey] ?? []),
  ...(groupLimits[group] ?? []),
];
const note = { reason: "because", by: "the test" };

interface Flight {
  readonly hold: Hold;
  readonly source: Source;
  readonly first: Charge;
  readonly held: (Source & { amount: Charge })[];
  /** When it was charged, and the number of that entry in the model. */
  charged?: { at: number; index: number };
}

const currency = fc.constantFrom("CNY", "CNY", "USD");
const amounts = fc.record({ requests: fc.constantFrom(1, 1, 1, 2), tokens: fc.nat(400), cost: fc.nat(900), currency });
const deltas = fc.record({
  requests: fc.integer({ min: -3, max: 3 }),
  tokens: fc.integer({ min: -300, max: 300 }),
  cost: fc.integer({ min: -900, max: 900 }),
  currency,
});
const source: fc.Arbitrary<Source> = fc.oneof(
  fc.record({
    user: fc.constant("alice"),
    apiKey: fc.constantFrom(undefined, "key-1", "key-2"),
    group: fc.constantFrom(undefined, ...groups),
  }),
  fc.record({ user: fc.constant("bob"), group: fc.constantFrom(undefined, ...groups) }),
);
const account = fc.constantFrom(...users, ...users, ...groups.map((group) => `@${group}`));
const pick = fc.nat(1000);

/** Something that happens to a world, and how likely it is. */
function step<T>(weight: number, value: fc.Arbitrary<T>, run: (world: World, value: T) => Promise<void> | void) {
  const arbitrary = value.map((one) =>
    Object.assign((world: World) => run(world, one), { toString: () => `${run.name} ${JSON.stringify(one)}` }),
  );
  return { weight, arbitrary };
}

class World {
  readonly clock = createManualClock(Date.parse("2026-11-22T04:00:00Z"));
  readonly model = new LedgerModel();
  readonly #folder: string;
  ops: FaultyFiles = createFaultyFiles();
  ledger!: MemoryLedger;
  flights: Flight[] = [];

  constructor(folder: string) {
    this.#folder = folder;
  }

  async open(): Promise<void> {
    this.model.held = [];
    this.flights = [];
    this.ops = createFaultyFiles();
    this.ledger = await openTestLedger(this.#folder, this.clock, { ops: this.ops, storage: { segment_bytes: 600 } });
  }

  /** The process is gone: of what it would write from here on, only the first few operations reach the disk. */
  async crash(reached: number): Promise<void> {
    const kinds = ["open", "write", "sync", "rename", "unlink"] as const;
    for (const kind of kinds) this.ops.fail(kind, "EIO", reached + 1, 1e9);
    await this.ledger.close().catch(() => undefined);
  }

  enter(of: Source, at: number, amount: Charge, more: object = {}): number {
    return this.model.entries.push({ ...of, at, amount, ...more }) - 1;
  }

  async compare(): Promise<void> {
    const now = this.clock.now();
    const shared = Object.values(groupLimits).flat();
    for (const one of users) {
      const all = [...limits, ...(one === "alice" ? Object.values(keyLimits).flat() : []), ...shared];
      const expected = all.map((limit) => ({
        used: this.model.used(one, limit, now),
        reserved: this.model.reserved(one, limit),
      }));
      expect(this.ledger.buckets(one, all)).toMatchObject(expected);
      const history = this.model.history(({ user }) => user === one);
      expect(byDay(await this.ledger.usage({ user: one, ...allDays }))).toEqual(history);
    }
    for (const group of groups) {
      const rows = await this.ledger.usage({ user: `@${group}`, ...allDays });
      expect(byDay(rows)).toEqual(this.model.history(inGroup(group)));
      for (const member of users) {
        const history = this.model.history((entry) => entry.group === group && entry.user === member);
        expect(byDay(rows.filter(({ key }) => key === member))).toEqual(history);
      }
    }
    expect(byDay(await this.ledger.usage(allDays))).toEqual(this.model.history(({ user }) => users.includes(user)));
  }
}

function sumOf(...amounts: readonly (number | undefined)[]): number {
  return amounts.reduce<number>((sum, amount = 0) => sum + amount, 0);
}

function byDay(rows: readonly UsageRow[]): (string | number)[][] {
  const days = new Map<string, number[]>();
  for (const row of rows) {
    expect(row.input + row.output).toBe(row.tokens);
    const [requests = 0, tokens = 0, cny = 0, usd = 0, unsettled = 0] = days.get(row.day) ?? [];
    const adjusted = row.adjusted ?? { requests: 0, tokens: 0, cost: {} };
    const used = [requests + row.requests + adjusted.requests, tokens + row.tokens + adjusted.tokens];
    const costs = [sumOf(cny, row.cost.CNY, adjusted.cost.CNY), sumOf(usd, row.cost.USD, adjusted.cost.USD)];
    days.set(row.day, [...used, ...costs, unsettled + row.unsettled]);
  }
  return [...days].map(([day, sums]) => [day, ...sums]);
}

function reserve(world: World, one: { source: Source; bound: Charge; part: number; model: string }): void {
  const { source, bound, part, model } = one;
  const limits = limitsOf(source);
  const share = (amount: number): number => Math.floor((amount * part) / 4);
  const first = { ...bound, tokens: share(bound.tokens), cost: share(bound.cost) };
  const room = world.model.hasRoom(source.user, limits, bound, world.clock.now());
  try {
    const hold = world.ledger.reserve(ask({ ...source, limits, upperBound: bound, model }));
    expect(room).toBe(true);
    const held = { ...source, amount: bound };
    world.model.held.push(held);
    world.flights.push({ hold, source, first, held: [held] });
  } catch (error) {
    if (!(error instanceof AppError)) throw error;
    expect(room).toBe(false);
  }
}

function commit(world: World, index: number): void {
  const flight = world.flights[index % world.flights.length];
  if (flight === undefined || flight.charged !== undefined) return;
  void flight.hold.commit(flight.first);
  const at = world.clock.now();
  flight.charged = { at, index: world.enter(flight.source, at, flight.first) };
  world.model.unsettled.add(flight.charged.index);
  const [held] = flight.held;
  if (held === undefined) return;
  const { tokens, cost, currency } = held.amount;
  held.amount = charge(0, tokens - flight.first.tokens, cost - flight.first.cost, currency);
}

function grow(world: World, one: { index: number; extra: Charge }): void {
  const flight = world.flights[one.index % world.flights.length];
  if (flight === undefined) return;
  const extra = { ...one.extra, requests: 0 };
  const { source } = flight;
  const room = world.model.hasRoom(source.user, limitsOf(source), extra, world.clock.now(), flight.charged?.index);
  const blocked = flight.hold.grow(extra);
  expect(blocked === null).toBe(room);
  if (!room) return;
  const held = { ...source, amount: extra };
  world.model.held.push(held);
  flight.held.push(held);
}

function settle(world: World, { index, final }: { index: number; final: Charge }): void {
  const flight = world.flights[index % world.flights.length];
  if (flight === undefined) return;
  void flight.hold.settle(settlement(final));
  if (flight.charged !== undefined) {
    const of = { of: flight.charged.index };
    world.enter(flight.source, flight.charged.at, final, of);
    world.enter(flight.source, flight.charged.at, minus(flight.first), of);
    world.model.unsettled.delete(flight.charged.index);
  }
  world.model.held = world.model.held.filter((held) => !flight.held.includes(held));
  world.flights.splice(world.flights.indexOf(flight), 1);
}

function adjust(world: World, { of, delta }: { of: string; delta: Charge }): void {
  void world.ledger.adjust(of, delta, note);
  world.enter({ user: of }, world.clock.now(), delta);
}

function reset(world: World, one: { of: string; per: "day" | "week" | "month" | "total" }): void {
  void world.ledger.reset(one.of, one.per, note);
  world.enter({ user: one.of }, world.clock.now(), charge(0), { reset: one.per });
}

function wait(world: World, ms: number): void {
  // A clock that steps back over midnight is another test's subject: the model knows no such thing.
  const crosses = periodKey("day", world.clock.now() + ms) < periodKey("day", world.clock.now());
  if (!crosses) world.clock.advance(ms);
}

async function crash(world: World, reached: number): Promise<void> {
  await world.crash(reached);
  await world.open();
}

async function restart(world: World): Promise<void> {
  await world.ledger.close();
  await world.open();
}

const model = fc.constantFrom("chat", "reasoner", 'it\'s "one"');
const per = fc.constantFrom("day" as const, "week" as const, "month" as const, "total" as const);
const steps = fc.oneof(
  step(5, fc.record({ source, bound: amounts, part: fc.nat(4), model }), reserve),
  step(5, pick, commit),
  step(2, fc.record({ index: pick, extra: amounts }), grow),
  step(4, fc.record({ index: pick, final: amounts }), settle),
  step(1, fc.record({ of: account, delta: deltas }), adjust),
  step(1, fc.record({ of: account, per }), reset),
  step(2, fc.integer({ min: -3_600_000, max: 2 * dayMs }), wait),
  step(1, fc.nat(8), crash),
  step(1, pick, restart),
);

describe("the ledger", () => {
  it("agrees with a list of charges after any interleaving, crash and restart, for users, API keys and groups", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(steps, { maxLength: 60, size: "max" }), async (life) => {
        const folder = tempDir();
        const world = new World(folder);
        await world.open();
        for (const one of life) {
          await one(world);
          await world.compare();
        }
        await world.crash(0);
        rmSync(folder, { recursive: true });
      }),
      { numRuns: 60, endOnFailure: true },
    );
  });
});
