import { expect, it } from "vitest";
import { AppError } from "../../../src/errors.ts";
import type { Charge, Hold, QuotaLimit } from "../../../src/quota/ledger.ts";
import type { Per } from "../../../src/quota/periods.ts";
import type { RedisLedger } from "../../../src/quota/redis/redis-ledger.ts";
import { fc } from "../../support/fast-check.ts";
import { ask, charge, settlement } from "../../support/ledger.ts";
import { LedgerModel, minus, periodKey, type Source } from "../../support/ledger-model.ts";
import { createManualClock, type ManualClock } from "../../support/manual-clock.ts";
import {
  createTestReplica,
  createTimedLibrary,
  openTestRedisLedger,
  seedTags,
  sentTwice,
  withClock,
} from "../../support/redis-ledger.ts";
import { describeWithRedis, newPrefix, useRedis } from "../../support/redis-server.ts";

const own: QuotaLimit[] = [
  { metric: "requests", per: "day", max: 5 },
  { metric: "tokens", per: "week", max: 2000 },
  { metric: "cost", per: "month", max: 5000, currency: "CNY" },
  { metric: "cost", per: "total", max: 20_000, currency: "USD" },
];
const ofKey: QuotaLimit[] = [{ metric: "requests", per: "day", max: 2, apiKey: "key-1" }];
const ofGroup: QuotaLimit[] = [
  { metric: "requests", per: "day", max: 3, group: "red" },
  { metric: "cost", per: "week", max: 1500, currency: "CNY", group: "red" },
];
const limitsOf = ({ apiKey, group }: Source): readonly QuotaLimit[] => [
  ...own,
  ...(apiKey === undefined ? [] : ofKey),
  ...(group === undefined ? [] : ofGroup),
];

interface Flight {
  readonly hold: Hold;
  readonly source: Source;
  readonly first: Charge;
  readonly held: (Source & { amount: Charge })[];
  charged?: { readonly at: number; readonly index: number };
}

/** The model, beside two nodes between which the requests alternate. */
class World {
  readonly model = new LedgerModel();
  readonly clock: ManualClock;
  readonly nodes: readonly [RedisLedger, RedisLedger];
  flights: Flight[] = [];
  requests = 0;

  constructor(clock: ManualClock, nodes: readonly [RedisLedger, RedisLedger]) {
    this.clock = clock;
    this.nodes = nodes;
  }

  get node(): RedisLedger {
    return this.nodes[this.requests++ % 2] ?? this.nodes[0];
  }

  enter(of: Source, amount: Charge, more: object = {}): number {
    return this.model.entries.push({ ...of, at: this.clock.now(), amount, ...more }) - 1;
  }

  async compare(): Promise<void> {
    const now = this.clock.now();
    for (const user of ["alice", "bob"]) {
      const all = [...own, ...(user === "alice" ? ofKey : []), ...ofGroup];
      const expected = all.map((limit) => ({
        used: this.model.used(user, limit, now),
        reserved: this.model.reserved(user, limit),
      }));
      expect(await this.node.buckets(user, all)).toMatchObject(expected);
    }
  }
}

type Step = (world: World) => Promise<void>;
const currency = fc.constantFrom("CNY", "CNY", "USD");
const amounts = fc.record({ requests: fc.constantFrom(1, 1, 2), tokens: fc.nat(400), cost: fc.nat(900), currency });
const deltas = fc.record({
  requests: fc.integer({ min: -3, max: 3 }),
  tokens: fc.integer({ min: -300, max: 300 }),
  cost: fc.integer({ min: -900, max: 900 }),
  currency,
});
const source: fc.Arbitrary<Source> = fc.oneof(
  fc.record({
    user: fc.constant("alice"),
    apiKey: fc.constantFrom(undefined, "key-1"),
    group: fc.constantFrom(undefined, "red"),
  }),
  fc.record({ user: fc.constant("bob"), group: fc.constantFrom(undefined, "red") }),
);
const account = fc.constantFrom("alice", "bob", "@red");
const pers = fc.constantFrom<Per>("day", "week", "month", "total");
const note = { reason: "because", by: "the test" };

const reserve = (of: Source, bound: Charge, part: number): Step =>
  async function reserve(world) {
    const limits = limitsOf(of);
    const share = (amount: number): number => Math.floor((amount * part) / 4);
    const first = { ...bound, tokens: share(bound.tokens), cost: share(bound.cost) };
    const room = world.model.hasRoom(of.user, limits, bound, world.clock.now());
    try {
      const hold = await world.node.reserve(ask({ ...of, limits, upperBound: bound }));
      expect(room).toBe(true);
      const held = { ...of, amount: bound };
      world.model.held.push(held);
      world.flights.push({ hold, source: of, first, held: [held] });
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      expect(error.code).toBe("quota_exceeded");
      expect(room).toBe(false);
    }
  };

const commit = (index: number): Step =>
  async function commit(world) {
    const flight = world.flights[index % world.flights.length];
    if (flight === undefined || flight.charged !== undefined) return;
    await flight.hold.commit(flight.first);
    // The group's part follows the user's: what comes next on the hold waits for it.
    await flight.hold.grow(charge(0, 0, 0, flight.first.currency));
    flight.charged = { at: world.clock.now(), index: world.enter(flight.source, flight.first) };
    const [held] = flight.held;
    if (held === undefined) return;
    const { tokens, cost, currency } = held.amount;
    held.amount = charge(0, tokens - flight.first.tokens, cost - flight.first.cost, currency);
  };

const grow = (index: number, more: Charge): Step =>
  async function grow(world) {
    const flight = world.flights[index % world.flights.length];
    if (flight === undefined) return;
    const extra = { ...more, requests: 0, currency: flight.first.currency };
    const { source, charged } = flight;
    const room = world.model.hasRoom(source.user, limitsOf(source), extra, world.clock.now(), charged?.index);
    expect((await flight.hold.grow(extra)) === null).toBe(room || (extra.tokens === 0 && extra.cost === 0));
    if (!room) return;
    const held = { ...flight.source, amount: extra };
    world.model.held.push(held);
    flight.held.push(held);
  };

const settle = (index: number, final: Charge): Step =>
  async function settle(world) {
    const flight = world.flights[index % world.flights.length];
    if (flight === undefined) return;
    await flight.hold.settle(settlement(final));
    if (flight.charged !== undefined) {
      const { at, index: of } = flight.charged;
      world.enter(flight.source, final, { at, of });
      world.enter(flight.source, minus(flight.first), { at, of });
    }
    world.model.held = world.model.held.filter((held) => !flight.held.includes(held));
    world.flights.splice(world.flights.indexOf(flight), 1);
  };

const adjust = (user: string, delta: Charge): Step =>
  async function adjust(world) {
    await world.node.adjust(user, delta, note);
    world.enter({ user }, delta);
  };

const reset = (user: string, per: Per): Step =>
  async function reset(world) {
    await world.node.reset(user, per, note);
    world.enter({ user }, charge(0), { reset: per });
  };

const wait = (ms: number): Step =>
  async function wait(world) {
    // A clock that steps back over midnight is another test's subject: the model knows no such thing.
    const crosses = periodKey("day", world.clock.now() + ms) < periodKey("day", world.clock.now());
    if (!crosses) world.clock.advance(ms);
    return Promise.resolve();
  };

const dayMs = 86_400_000;
const steps: fc.Arbitrary<Step> = fc.oneof(
  { weight: 5, arbitrary: fc.tuple(source, amounts, fc.nat(4)).map((given) => reserve(...given)) },
  { weight: 5, arbitrary: fc.nat(1000).map(commit) },
  { weight: 2, arbitrary: fc.tuple(fc.nat(1000), amounts).map((given) => grow(...given)) },
  { weight: 4, arbitrary: fc.tuple(fc.nat(1000), amounts).map((given) => settle(...given)) },
  { weight: 1, arbitrary: fc.tuple(account, deltas).map((given) => adjust(...given)) },
  { weight: 1, arbitrary: fc.tuple(account, pers).map((given) => reset(...given)) },
  { weight: 2, arbitrary: fc.integer({ min: -3_600_000, max: 2 * dayMs }).map(wait) },
);

describeWithRedis("the ledger over Redis", () => {
  const { open } = useRedis();
  const library = createTimedLibrary();

  it("agrees with a list of charges after any interleaving on two nodes, where every call arrives twice", async () => {
    const connection = await open({ library });
    const startsAt = Date.parse("2026-11-22T04:00:00Z");
    const replica = await createTestReplica(createManualClock(startsAt));
    await fc.assert(
      fc.asyncProperty(fc.array(steps, { maxLength: 40, size: "max" }), async (life) => {
        const clock = createManualClock(startsAt);
        const prefix = newPrefix();
        const keyIn: typeof connection.keyIn = (tag, ...rest) => connection.keyIn(tag, prefix, rest.join(":"));
        const redis = withClock(sentTwice({ ...connection, keyIn }), clock);
        await seedTags(redis);
        const untold = { ...replica, note: () => undefined };
        const nodes = [
          await openTestRedisLedger(redis, clock, { replica: untold }),
          await openTestRedisLedger(redis, clock, { replica: untold }),
        ] as const;
        const world = new World(clock, nodes);
        for (const one of life) {
          await one(world);
          await world.compare();
        }
        for (const node of nodes) await node.close();
      }),
      { numRuns: 25, endOnFailure: true },
    );
  });
});
