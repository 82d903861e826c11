import { fc } from "../support/fast-check.ts";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { DisconnectSignal } from "../../src/lib/disconnect-signal.ts";
import { createMemoryConcurrency } from "../../src/limits/memory/memory-concurrency.ts";
import type { Permit, PermitRequest, PermitScope } from "../../src/limits/concurrency.ts";

type Step =
  | { readonly do: "acquire"; readonly needs: Omit<PermitRequest, "requestId"> }
  | { readonly do: "release"; readonly which: number }
  | { readonly do: "leave"; readonly which: number }
  | { readonly do: "move"; readonly which: number; readonly to: PermitScope }
  | { readonly do: "wait"; readonly ms: number };

interface Signal extends DisconnectSignal {
  gone: boolean;
}

/** A request as the model knows it: which state it must be in. */
interface Request {
  readonly needs: Omit<PermitRequest, "requestId">;
  readonly signal: Signal;
  readonly deadline: number;
  state: "waiting" | "held" | "released" | "refused" | "gone";
}

const maxWaitMs = 100;
const maxWaiting = 3;
const maxWaitingTotal = 8;

const changes = [
  fc.record({ do: fc.constantFrom("release" as const, "leave" as const), which: fc.nat({ max: 50 }) }),
  fc.record({ do: fc.constant("wait"), ms: fc.integer({ min: 1, max: 60 }) }),
] as const;

const userScope = (key: string, max: number): PermitScope => ({ kind: "user", key, max });
const scope = (kind: PermitScope["kind"], key: string, max: number): PermitScope => ({ kind, key, max });

/** The limiter, and what came of each request. */
function openLimiter(total = maxWaitingTotal) {
  const rule = { maxWaitMs, maxWaiting, maxWaitingTotal: total };
  const limiter = createMemoryConcurrency({ rule, now: () => Date.now() });
  const permits = new Map<Request, Permit>();
  const failed = new Map<Request, string>();
  return {
    limiter,
    permits,
    failed,
    acquire(request: Request): void {
      const got = (permit: Permit) => permits.set(request, permit);
      const not = (error: Error) => failed.set(request, error.name);
      try {
        const answer = limiter.acquire({ requestId: "r", ...request.needs }, request.signal);
        if (answer instanceof Promise) answer.then(got, not);
        else got(answer);
      } catch (error) {
        not(error as Error);
      }
    },
  };
}

/** Caps of users and of the process again, in the plainest way: lists, and a search for whose turn it is. */
function createModel(processMax: number) {
  const requests: Request[] = [];
  const maxOf = new Map<string, number>();
  const ring = new Map<string, { turn: number; left: number }>();
  let turns = 0;
  let now = 0;
  const inState = (state: Request["state"], user?: string) =>
    requests.filter((request) => request.state === state && (user === undefined || request.needs.user === user));
  const fits = (user: string) =>
    inState("held").length < processMax && inState("held", user).length < (maxOf.get(user) ?? 0);
  function leaveRing(user: string): void {
    if (inState("waiting", user).length === 0) ring.delete(user);
  }
  function serve(): void {
    for (;;) {
      const [next] = [...ring].filter(([user]) => fits(user)).sort(([, a], [, b]) => a.turn - b.turn);
      if (next === undefined) return;
      const [user, place] = next;
      const [request] = inState("waiting", user);
      if (request === undefined) throw new Error("a user in the ring waits for nothing");
      request.state = "held";
      place.left -= 1;
      if (place.left === 0) Object.assign(place, { turn: ++turns, left: request.needs.weight });
      leaveRing(user);
    }
  }
  return {
    requests,
    acquire(needs: Request["needs"], signal: Signal): Request {
      const { user, weight } = needs;
      maxOf.set(user, needs.scopes[0]?.max ?? 0);
      serve();
      const request: Request = { needs, signal, deadline: now + maxWaitMs, state: "waiting" };
      if (fits(user)) request.state = "held";
      else if (inState("waiting", user).length >= maxWaiting || inState("waiting").length >= maxWaitingTotal)
        request.state = "refused";
      else if (!ring.has(user)) ring.set(user, { turn: ++turns, left: weight });
      requests.push(request);
      return request;
    },
    end(request: Request, state: "released" | "gone"): void {
      request.state = state;
      leaveRing(request.needs.user);
      serve();
    },
    wait(ms: number): void {
      now += ms;
      for (const request of inState("waiting")) {
        if (request.deadline > now) continue;
        request.state = "refused";
        leaveRing(request.needs.user);
      }
    },
  };
}

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

test("with caps of users and of the process, each request is granted, kept waiting and refused as the model says", async () => {
  const weights: Readonly<Record<string, number>> = { a: 1, b: 1, c: 3 };
  const acquire = fc
    .record({ user: fc.constantFrom("a", "b", "c"), max: fc.integer({ min: 1, max: 3 }) })
    .map(({ user, max }): Step => {
      const scopes = [userScope(user, max), scope("process", "", processMax)];
      return { do: "acquire", needs: { user, weight: weights[user] ?? 1, scopes, providers: [] } };
    });
  const processMax = 4;
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.oneof({ weight: 3, arbitrary: acquire }, ...changes), { maxLength: 60 }),
      async (steps) => {
        const { limiter, permits, failed, acquire: start } = openLimiter();
        const model = createModel(processMax);

        async function run(step: Step): Promise<void> {
          if (step.do === "acquire") start(model.acquire(step.needs, { gone: false, onGone: undefined }));
          if (step.do === "wait") {
            model.wait(step.ms);
            await vi.advanceTimersByTimeAsync(step.ms);
          }
          if (step.do === "release") {
            const request = pick(model.requests, "held", step.which);
            if (request === undefined) return;
            model.end(request, "released");
            void permits.get(request)?.release();
            void permits.get(request)?.release();
          }
          if (step.do === "leave") {
            const request = pick(model.requests, "waiting", step.which);
            if (request === undefined) return;
            model.end(request, "gone");
            leave(request.signal);
          }
        }

        async function compare(): Promise<void> {
          await vi.advanceTimersByTimeAsync(0);
          const count = (state: Request["state"]) => model.requests.filter((request) => request.state === state).length;
          expect(limiter.inFlight()).toBe(count("held"));
          expect(limiter.waiting()).toBe(count("waiting"));
          expectTimers(count("waiting"));
          for (const request of model.requests) {
            expect(permits.has(request)).toBe(request.state === "held" || request.state === "released");
            const expected = { refused: "AppError", gone: "ClientDisconnectedError" } as Record<string, string>;
            expect(failed.get(request)).toBe(expected[request.state]);
          }
        }

        for (const step of steps) {
          await run(step);
          await compare();
        }
        for (let request; (request = pick(model.requests, "held", 0));) {
          model.end(request, "released");
          void permits.get(request)?.release();
          await compare();
        }
      },
    ),
    { numRuns: 200 },
  );
});

/** Fixed caps, so that what is in use can be checked against them at any time. */
const providers = [scope("provider", "p1", 2), scope("provider", "p2", 1), scope("provider", "p3", Infinity)];
const needs = fc
  .record({
    user: fc.constantFrom("a", "b", "c"),
    group: fc.constantFrom(null, scope("group", "g", 2)),
    model: fc.constantFrom(null, scope("model", "m1", 1), scope("model", "m2", 2)),
    total: fc.constantFrom(null, scope("process", "", 4)),
    providers: fc.subarray(providers),
  })
  .map(({ user, group, model, total, providers: some }) => ({
    user,
    weight: 1,
    providers: some,
    scopes: [userScope(user, 3), group, model, total].filter((one) => one !== null),
  }));

/**
 * Each that waits has a timer, and nothing else has one: those that were left behind would be more with each step. A
 * connection that an earlier file of this worker has left may have one of its own.
 */
function expectTimers(waiting: number): void {
  expect(vi.getTimerCount() - waiting).toBeOneOf([0, 1]);
}

test("whatever is acquired, moved, released, left and waited out, no place is lost, doubled or left unused", async () => {
  const step: fc.Arbitrary<Step> = fc.oneof(
    { weight: 4, arbitrary: fc.record({ do: fc.constant("acquire"), needs }) },
    ...changes,
    fc.record({ do: fc.constant("move"), which: fc.nat({ max: 50 }), to: fc.constantFrom(...providers) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 80 }), async (steps) => {
      const { limiter, permits, failed, acquire } = openLimiter(6);
      const requests: Request[] = [];

      /** Brings the states up to date. */
      async function look(): Promise<void> {
        await vi.advanceTimersByTimeAsync(0);
        for (const request of requests) {
          if (request.state !== "waiting") continue;
          if (permits.has(request)) request.state = "held";
          else if (failed.has(request)) request.state = "refused";
        }
      }

      function used(): ReadonlyMap<string, number> {
        const counts = new Map<string, number>();
        const add = (kind: string, key: string) =>
          counts.set(`${kind} ${key}`, (counts.get(`${kind} ${key}`) ?? 0) + 1);
        for (const request of requests) {
          const provider = permits.get(request)?.provider ?? null;
          if (request.state !== "held") continue;
          for (const { kind, key } of request.needs.scopes) add(kind, key);
          if (provider !== null) add("provider", provider);
          else expect(request.needs.providers).toEqual([]);
        }
        return counts;
      }

      function check(): void {
        const counts = used();
        const left = ({ kind, key, max }: PermitScope) => max - (counts.get(`${kind} ${key}`) ?? 0);
        const waiting = requests.filter(({ state }) => state === "waiting");
        expect(limiter.inFlight()).toBe(requests.filter(({ state }) => state === "held").length);
        expect(limiter.waiting()).toBe(waiting.length);
        expectTimers(waiting.length);
        for (const { needs: all } of requests)
          for (const one of [...all.scopes, ...all.providers]) expect(left(one)).toBeGreaterThanOrEqual(0);
        for (const { needs: all } of waiting) {
          const most = Math.max(-Infinity, ...all.providers.map(left));
          const least = Math.min(...all.scopes.map(left), all.providers.length === 0 ? Infinity : most);
          // One place may be kept for a request that others have passed.
          expect(least).toBeLessThan(2);
        }
      }

      for (const next of steps) {
        if (next.do === "acquire") {
          const signal: Signal = { gone: false, onGone: undefined };
          const request: Request = { needs: next.needs, signal, deadline: 0, state: "waiting" };
          requests.push(request);
          acquire(request);
        }
        if (next.do === "wait") await vi.advanceTimersByTimeAsync(next.ms);
        if (next.do === "release") {
          const request = pick(requests, "held", next.which);
          if (request !== undefined) request.state = "released";
          void (request && permits.get(request))?.release();
          void (request && permits.get(request))?.release();
        }
        if (next.do === "move") {
          const request = pick(requests, "held", next.which);
          const permit = request && permits.get(request);
          if (permit !== undefined && permit.provider !== null) {
            const before = permit.provider;
            const moved = await permit.move(next.to);
            expect(permit.provider).toBe(moved ? next.to.key : before);
          }
        }
        if (next.do === "leave") {
          const request = pick(requests, "waiting", next.which);
          if (request !== undefined) {
            request.state = "gone";
            leave(request.signal);
          }
        }
        await look();
        check();
      }
      // Without any timer: who still waits gets a turn as the others end.
      for (let request; (request = pick(requests, "held", 0));) {
        request.state = "released";
        void permits.get(request)?.release();
        await look();
        check();
      }
      expect([limiter.inFlight(), limiter.waiting()]).toEqual([0, 0]);
    }),
    { numRuns: 300 },
  );
});

function leave(signal: Signal): void {
  signal.gone = true;
  signal.onGone?.();
}

function pick(requests: readonly Request[], state: Request["state"], which: number): Request | undefined {
  const candidates = requests.filter((request) => request.state === state);
  return candidates[which % candidates.length];
}
