import fc from "fast-check";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { DisconnectSignal } from "../../src/lib/disconnect-signal.ts";
import { createMemoryConcurrency } from "../../src/limits/memory/memory-concurrency.ts";
import type { Permit } from "../../src/limits/concurrency.ts";

type Step =
  | { readonly do: "acquire"; readonly user: string; readonly max: number }
  | { readonly do: "release" | "signal"; readonly which: number }
  | { readonly do: "wait"; readonly ms: number };

/** A request as the model knows it: which state it must be in. */
interface Request {
  readonly user: string;
  readonly signal: { gone: boolean; onGone: (() => void) | undefined };
  readonly deadline: number;
  state: "waiting" | "held" | "released" | "refused" | "gone";
}

const maxWaitMs = 100;
const maxWaiting = 3;
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ do: fc.constant("acquire"), user: fc.constantFrom("a", "b"), max: fc.integer({ min: 1, max: 3 }) }),
  fc.record({ do: fc.constantFrom("release", "signal"), which: fc.nat({ max: 50 }) }),
  fc.record({ do: fc.constant("wait"), ms: fc.integer({ min: 1, max: 60 }) }),
);

/** The permits again, in the plainest way: a list of requests in order of arrival. */
function createModel() {
  const requests: Request[] = [];
  const maxes = new Map<string, number>();
  let now = 0;
  const inState = (user: string, state: Request["state"]) =>
    requests.filter((request) => request.user === user && request.state === state);
  function serve(user: string): void {
    for (const request of inState(user, "waiting")) {
      if (inState(user, "held").length < (maxes.get(user) ?? 0)) request.state = "held";
    }
  }
  return {
    requests,
    acquire(user: string, max: number, signal: Request["signal"]): Request {
      // A user who holds and waits for nothing is forgotten; then there is no line that a new maximum could serve.
      maxes.set(user, max);
      serve(user);
      const request: Request = { user, signal, deadline: now + maxWaitMs, state: "waiting" };
      requests.push(request);
      serve(user);
      if (request.state === "waiting" && inState(user, "waiting").length > maxWaiting) request.state = "refused";
      return request;
    },
    end(request: Request, state: "released" | "gone"): void {
      request.state = state;
      serve(request.user);
    },
    wait(ms: number): void {
      now += ms;
      for (const request of requests) {
        if (request.state === "waiting" && request.deadline <= now) request.state = "refused";
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

test("whatever is acquired, released, left and waited out in whatever order, no permit leaks or doubles", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
      const permits = createMemoryConcurrency({ maxWaitMs, maxWaiting });
      const model = createModel();
      const held = new Map<Request, Permit>();
      const failed = new Map<Request, string>();

      function acquire(user: string, max: number): void {
        const signal: DisconnectSignal & Request["signal"] = { gone: false, onGone: undefined };
        const request = model.acquire(user, max, signal);
        const got = (permit: Permit) => held.set(request, permit);
        const not = (error: Error) => failed.set(request, error.name);
        try {
          const answer = permits.acquire(
            { requestId: "r", user, weight: 1, scopes: [{ kind: "user", key: user, max }], providers: [] },
            signal,
          );
          if (answer instanceof Promise) answer.then(got, not);
          else got(answer);
        } catch (error) {
          not(error as Error);
        }
      }

      async function run(next: Step): Promise<void> {
        if (next.do === "acquire") acquire(next.user, next.max);
        if (next.do === "wait") {
          model.wait(next.ms);
          await vi.advanceTimersByTimeAsync(next.ms);
        }
        if (next.do === "release") {
          const request = pick(model.requests, "held", next.which);
          if (request === undefined) return;
          model.end(request, "released");
          void held.get(request)?.release();
          void held.get(request)?.release();
        }
        if (next.do === "signal") {
          const request = pick(model.requests, "waiting", next.which);
          if (request === undefined) return;
          model.end(request, "gone");
          request.signal.gone = true;
          request.signal.onGone?.();
        }
      }

      async function compare(): Promise<void> {
        await vi.advanceTimersByTimeAsync(0);
        const count = (state: Request["state"]) => model.requests.filter((request) => request.state === state).length;
        expect(permits.inFlight()).toBe(count("held"));
        expect(permits.waiting()).toBe(count("waiting"));
        expect(vi.getTimerCount()).toBe(count("waiting"));
        for (const request of model.requests) {
          expect(held.has(request)).toBe(request.state === "held" || request.state === "released");
          const expected = { refused: "AppError", gone: "ClientDisconnectedError" } as Record<string, string>;
          expect(failed.get(request)).toBe(expected[request.state]);
        }
      }

      for (const next of steps) {
        await run(next);
        await compare();
      }
      for (let request; (request = pick(model.requests, "held", 0));) {
        void held.get(request)?.release();
        model.end(request, "released");
        await compare();
      }
    }),
    { numRuns: 200 },
  );
});

function pick(requests: readonly Request[], state: Request["state"], which: number): Request | undefined {
  const candidates = requests.filter((request) => request.state === state);
  return candidates[which % candidates.length];
}
