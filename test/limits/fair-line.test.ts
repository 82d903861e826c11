import { fc } from "../support/fast-check.ts";
import { beforeEach, describe, expect, test, vi } from "vitest";
import type { Permit, PermitScope, Waiting } from "../../src/limits/concurrency.ts";
import { createMemoryConcurrency } from "../../src/limits/memory/memory-concurrency.ts";

interface Asked {
  readonly user: string;
  readonly weight?: number;
  readonly scopes: readonly PermitScope[];
  readonly providers?: readonly PermitScope[];
}

const total = (max: number): PermitScope => ({ kind: "process", key: "", max });
const group = (max: number): PermitScope => ({ kind: "group", key: "g", max });
const model = (max: number): PermitScope => ({ kind: "model", key: "m", max });
const provider = (key: string, max: number): PermitScope => ({ kind: "provider", key, max });

/** A limiter in which requests wait for an hour; `granted` are the labels of those that waited, in order. */
function open(maxWaitingTotal = 10_000) {
  let now = 0;
  const rule = { maxWaitMs: 3_600_000, maxWaiting: 10_000, maxWaitingTotal };
  const limiter = createMemoryConcurrency({ rule, now: () => now });
  const held: { readonly label: string; readonly permit: Permit }[] = [];
  const granted: string[] = [];
  const leavers = new Map<string, () => void>();
  const standing = new Map<string, () => Waiting>();
  return {
    limiter,
    held,
    granted,
    standing,
    pass(ms: number) {
      now += ms;
    },
    ask({ weight = 1, providers = [], ...asked }: Asked, label = asked.user): void {
      const signal = { gone: false, onGone: undefined as (() => void) | undefined };
      const permit = limiter.acquire({ requestId: "r", weight, providers, ...asked }, signal, (at) => {
        standing.set(label, at);
      });
      leavers.set(label, () => {
        signal.gone = true;
        signal.onGone?.();
      });
      if (!(permit instanceof Promise)) held.push({ label, permit: permit });
      else
        permit.then(
          (later) => {
            held.push({ label, permit: later });
            granted.push(label);
          },
          () => undefined,
        );
    },
    leave: (label: string) => leavers.get(label)?.(),
    /** Releases one of those that are held; resolves once who gets its place has it. */
    async release(index = 0): Promise<void> {
      const [one] = held.splice(index % held.length, 1);
      void one?.permit.release();
      await vi.advanceTimersByTimeAsync(0);
    },
  };
}

beforeEach(() => {
  vi.useFakeTimers();
  return () => {
    vi.useRealTimers();
  };
});

describe("the fair line", () => {
  test("gives a user with many requests no more turns than each of those with few, whatever ends first", async () => {
    const ends = fc.array(fc.nat({ max: 1000 }), { minLength: 400, maxLength: 400 });
    const counts = fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 20, maxLength: 20 });
    await fc.assert(
      fc.asyncProperty(counts, ends, fc.boolean(), async (few, order, heavyFirst) => {
        const line = open();
        const scopes = [total(5)];
        for (let index = 0; index < 5; index++) line.ask({ user: "other", scopes });
        const askHeavy = () => {
          for (let index = 0; index < 200; index++) line.ask({ user: "heavy", scopes });
        };
        if (heavyFirst) askHeavy();
        few.forEach((count, user) => {
          for (let index = 0; index < count; index++) line.ask({ user: `light-${user}`, scopes });
        });
        if (!heavyFirst) askHeavy();
        for (const index of order) if (line.held.length > 0) await line.release(index);

        expect(line.granted).toHaveLength(200 + few.reduce((sum, count) => sum + count));
        const at = (user: string, nth: number) => positions(line.granted, user)[nth] ?? Infinity;
        few.forEach((count, user) => {
          for (let nth = 0; nth < count; nth++) {
            // Who has joined first goes first in each round.
            expect(at(`light-${user}`, nth)).toBeLessThan(at("heavy", heavyFirst ? nth + 1 : nth));
          }
        });
      }),
      { numRuns: 15 },
    );
  });

  test("gives a user of weight 3 three turns to each of the others'", async () => {
    const line = open();
    const scopes = [total(1)];
    line.ask({ user: "other", scopes });
    for (let index = 0; index < 6; index++) {
      line.ask({ user: "a", scopes });
      line.ask({ user: "b", weight: 3, scopes });
    }
    for (let index = 0; index < 8; index++) await line.release();
    expect(line.granted.join("")).toBe("abbbabbb");
  });

  test("lets others go first while there is no room for the one whose turn it is, who then is the next", async () => {
    const line = open();
    line.ask({ user: "other", scopes: [model(1), total(3)] });
    line.ask({ user: "other", scopes: [total(3)] });
    line.ask({ user: "other", scopes: [total(3)] });
    line.ask({ user: "a", scopes: [model(1), total(3)] });
    line.ask({ user: "b", scopes: [total(3)] });
    await line.release(1);
    expect(line.granted).toEqual(["b"]);
    line.ask({ user: "c", scopes: [total(3)] });
    await line.release(0);
    expect(line.granted).toEqual(["b", "a"]);
  });

  test("keeps places in the end for a request that needs several, which others take by turns", async () => {
    const line = open();
    const inGroup = { user: "g", scopes: [group(1)] };
    const ofModel = { user: "m", scopes: [model(1)] };
    line.ask(inGroup);
    line.ask(ofModel);
    line.ask({ user: "both", scopes: [group(1), model(1)] });
    let rounds = 0;
    while (line.granted.at(-1) !== "both" && rounds < 50) {
      rounds += 1;
      // Before one ends the next of its kind waits, so the group and the model are never free together by chance.
      line.ask(rounds % 2 === 0 ? inGroup : ofModel);
      await line.release(line.held.findIndex(({ label }) => label === (rounds % 2 === 0 ? "g" : "m")));
    }
    expect(rounds).toBeLessThan(20);
    // What was kept is free again.
    while (line.held.length > 0) await line.release();
    expect([line.limiter.inFlight(), line.limiter.waiting()]).toEqual([0, 0]);
    line.ask(inGroup);
    line.ask(ofModel);
    expect(line.held).toHaveLength(2);
  });

  test("frees what was kept for a request once it leaves", async () => {
    const line = open();
    const inGroup = { user: "g", scopes: [group(1)] };
    const ofModel = { user: "m", scopes: [model(1)] };
    line.ask(inGroup);
    line.ask(ofModel);
    line.ask({ user: "both", scopes: [group(1), model(1)] });
    for (let round = 0; line.limiter.waiting() === 1 && round < 20; round++) {
      line.ask(round % 2 === 0 ? inGroup : ofModel);
      await line.release(line.held.findIndex(({ label }) => label === (round % 2 === 0 ? "g" : "m")));
    }
    // A place is kept: one that came meanwhile waits although there is room.
    expect(line.limiter.waiting()).toBe(2);
    line.leave("both");
    await vi.advanceTimersByTimeAsync(0);
    expect(line.limiter.waiting()).toBe(0);
  });

  test("lets a user's request for one model pass the user's request for another that waits", () => {
    const line = open();
    line.ask({ user: "a", scopes: [model(1)] });
    line.ask({ user: "a", scopes: [model(1)] });
    line.ask({ user: "a", scopes: [{ ...model(1), key: "n" }] });
    expect([line.limiter.inFlight(), line.limiter.waiting()]).toEqual([2, 1]);
  });

  test("takes the first provider with room, and wakes who waits for several once one has", async () => {
    const line = open();
    const providers = [provider("p", 1), provider("q", 1)];
    line.ask({ user: "a", scopes: [], providers });
    line.ask({ user: "b", scopes: [], providers });
    line.ask({ user: "c", scopes: [], providers });
    expect(line.held.map(({ permit }) => permit.provider)).toEqual(["p", "q"]);
    await line.release(1);
    expect(line.held.map(({ label, permit }) => [label, permit.provider])).toEqual([
      ["a", "p"],
      ["c", "q"],
    ]);
    expect(await line.held[0]?.permit.move(provider("q", 1))).toBe(false);
    await line.release(1);
    line.ask({ user: "d", scopes: [], providers: [provider("p", 1)] });
    expect(await line.held[0]?.permit.move(provider("q", 1))).toBe(true);
    await vi.advanceTimersByTimeAsync(0);
    expect(line.granted).toEqual(["c", "d"]);
  });

  test("says who is in which place, and how long that may take once two have gone", async () => {
    const line = open();
    const scopes = [total(1)];
    line.ask({ user: "other", scopes });
    for (const label of ["h1", "h2", "h3", "h4", "h5"]) line.ask({ user: "heavy", scopes }, label);
    line.ask({ user: "light", scopes });
    const places = () => ["h2", "h3", "light"].map((label) => line.standing.get(label)?.().place);
    expect(places()).toEqual([3, 4, 2]);
    expect(line.standing.get("h2")?.().expectedMs).toBeNull();
    line.pass(4000);
    await line.release();
    line.pass(2000);
    await line.release();
    expect(line.granted).toEqual(["h1", "light"]);
    expect(line.standing.get("h3")?.()).toEqual({ place: 2, expectedMs: 6000 });
  });

  test("refuses whom it has no room for, and says which cap is full but not whose", () => {
    const line = open(1);
    const ask = () => {
      line.ask({ user: "a", scopes: [group(1), total(9)], providers: [provider("p", 1)] });
    };
    ask();
    ask();
    expect(ask).toThrow(expect.objectContaining({ code: "concurrency_exceeded" }));
    expect(ask).toThrow(
      expect.objectContaining({ extras: { retryAfterSeconds: 1, details: { scope: "group", max: 1 } } }),
    );
  });
});

function positions(granted: readonly string[], user: string): readonly number[] {
  return granted.flatMap((label, index) => (label === user ? [index] : []));
}
