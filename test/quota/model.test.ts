import { rmSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AppError } from "../../src/errors.ts";
import type { Charge, Hold, Limit, Per } from "../../src/quota/ledger.ts";
import type { MemoryLedger } from "../../src/quota/memory-ledger.ts";
import { createFaultyFiles, type FaultyFiles } from "../support/faulty-files.ts";
import { ask, charge, openTestLedger, settlement } from "../support/ledger.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { tempDir } from "../support/temp-dir.ts";

const dayMs = 86_400_000;
const users = ["alice", "bob"];
const limits: Limit[] = [
  { metric: "requests", per: "day", max: 5 },
  { metric: "tokens", per: "week", max: 2000 },
  { metric: "requests", per: "month", max: 20 },
  { metric: "cost", per: "month", max: 5000, currency: "CNY" },
  { metric: "cost", per: "total", max: 20_000, currency: "USD" },
];

/** Which period of Shanghai's calendar an instant is in: there are eight hours and no summer time. */
function periodKey(per: Per, atMs: number): number {
  const day = Math.floor((atMs + dayMs / 3) / dayMs);
  const date = new Date(day * dayMs);
  const month = date.getUTCFullYear() * 12 + date.getUTCMonth();
  // The epoch was a Thursday.
  return { day, week: Math.floor((day + 3) / 7), month, total: 0 }[per];
}

/** The whole of accounting: a list of charges, and a list of what is held. */
class Model {
  charges: { user: string; at: number; amount: Charge }[] = [];
  held: { user: string; amount: Charge }[] = [];

  used(user: string, { metric, per, currency }: Limit, now: number): number {
    return this.charges
      .filter((charge) => charge.user === user && periodKey(per, charge.at) === periodKey(per, now))
      .reduce((sum, { amount }) => sum + amountOf(amount, metric, currency), 0);
  }

  reserved(user: string, { metric, currency }: Limit): number {
    return this.held
      .filter((held) => held.user === user)
      .reduce((sum, { amount }) => sum + amountOf(amount, metric, currency), 0);
  }

  hasRoom(user: string, bound: Charge, now: number): boolean {
    return limits.every((limit) => {
      if (limit.metric === "cost" && limit.currency !== bound.currency) return true;
      return this.used(user, limit, now) + this.reserved(user, limit) + bound[limit.metric] <= limit.max;
    });
  }
}

function amountOf(amount: Charge, metric: Limit["metric"], currency: string | undefined): number {
  return metric === "cost" && amount.currency !== currency ? 0 : amount[metric];
}

interface Flight {
  readonly hold: Hold;
  readonly user: string;
  readonly first: Charge;
  readonly bound: Charge;
  readonly held: { user: string; amount: Charge };
  charged?: { user: string; at: number; amount: Charge };
}

type Step =
  | { readonly do: "reserve"; readonly user: string; readonly bound: Charge; readonly part: number }
  | { readonly do: "commit" | "crash" | "restart"; readonly pick: number }
  | { readonly do: "settle"; readonly pick: number; readonly final: Charge }
  | { readonly do: "wait"; readonly ms: number };

const amounts = fc.record({
  requests: fc.constantFrom(1, 1, 1, 2),
  tokens: fc.nat(400),
  cost: fc.nat(900),
  currency: fc.constantFrom("CNY", "CNY", "USD"),
});
const pick = fc.nat(1000);
const steps: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant("reserve" as const),
      user: fc.constantFrom(...users),
      bound: amounts,
      part: fc.nat(4),
    }),
  },
  { weight: 5, arbitrary: fc.record({ do: fc.constant("commit" as const), pick }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("settle" as const), pick, final: amounts }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant("wait" as const), ms: fc.integer({ min: -3_600_000, max: 2 * dayMs }) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom("crash" as const, "restart" as const), pick }) },
);

class World {
  readonly clock = createManualClock(Date.parse("2026-11-22T04:00:00Z"));
  readonly model = new Model();
  readonly #folder: string;
  #ops: FaultyFiles = createFaultyFiles();
  #ledger!: MemoryLedger;
  flights: Flight[] = [];

  constructor(folder: string) {
    this.#folder = folder;
  }

  async open(): Promise<void> {
    this.#ops = createFaultyFiles();
    this.#ledger = await openTestLedger(this.#folder, this.clock, { ops: this.#ops, storage: { segment_bytes: 600 } });
  }

  async take(step: Step): Promise<void> {
    switch (step.do) {
      case "reserve":
        this.#reserve(step.user, step.bound, step.part);
        break;
      case "commit":
        this.#commit(this.flights[step.pick % this.flights.length]);
        break;
      case "settle":
        this.#settle(this.flights[step.pick % this.flights.length], step.final);
        break;
      case "wait": {
        // A clock that steps back over midnight is another test's subject: the model knows no such thing.
        const crosses = periodKey("day", this.clock.now() + step.ms) < periodKey("day", this.clock.now());
        if (!crosses) this.clock.advance(step.ms);
        break;
      }
      case "crash":
        await this.crash();
        await this.open();
        break;
      case "restart":
        await this.#ledger.close();
        this.#forget();
        await this.open();
        break;
    }
    this.#compare();
  }

  /** The process is gone: nothing it would write from here on reaches the disk. */
  async crash(): Promise<void> {
    for (const kind of ["open", "write", "sync", "rename", "unlink"] as const) this.#ops.fail(kind, "EIO", 1, 1e9);
    await this.#ledger.close().catch(() => undefined);
    this.#forget();
  }

  #forget(): void {
    this.model.held = [];
    this.flights = [];
  }

  #reserve(user: string, bound: Charge, part: number): void {
    const first = {
      ...bound,
      tokens: Math.floor((bound.tokens * part) / 4),
      cost: Math.floor((bound.cost * part) / 4),
    };
    const room = this.model.hasRoom(user, bound, this.clock.now());
    try {
      const hold = this.#ledger.reserve(ask({ user, limits, upperBound: bound, firstCharge: first }));
      expect(room).toBe(true);
      const held = { user, amount: bound };
      this.model.held.push(held);
      this.flights.push({ hold, user, first, bound, held });
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      expect(room).toBe(false);
    }
  }

  #commit(flight: Flight | undefined): void {
    if (flight === undefined || flight.charged !== undefined) return;
    void flight.hold.commit();
    flight.charged = { user: flight.user, at: this.clock.now(), amount: flight.first };
    this.model.charges.push(flight.charged);
    const { bound, first } = flight;
    flight.held.amount = charge(0, bound.tokens - first.tokens, bound.cost - first.cost, bound.currency);
  }

  #settle(flight: Flight | undefined, final: Charge): void {
    if (flight === undefined) return;
    void flight.hold.settle(settlement(final));
    if (flight.charged !== undefined) flight.charged.amount = final;
    this.model.held.splice(this.model.held.indexOf(flight.held), 1);
    this.flights.splice(this.flights.indexOf(flight), 1);
  }

  #compare(): void {
    for (const user of users) {
      const expected = limits.map((limit) => ({
        used: this.model.used(user, limit, this.clock.now()),
        reserved: this.model.reserved(user, limit),
      }));
      expect(this.#ledger.buckets(user, limits)).toMatchObject(expected);
    }
  }
}

describe("the ledger", () => {
  it("agrees with a list of charges after any interleaving, crash and restart", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(steps, { maxLength: 60, size: "max" }), async (life) => {
        const folder = tempDir();
        const world = new World(folder);
        await world.open();
        for (const step of life) await world.take(step);
        await world.crash();
        rmSync(folder, { recursive: true });
      }),
      { numRuns: 60 },
    );
  });
});
