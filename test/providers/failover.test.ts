import { afterEach, describe, expect, it } from "vitest";
import { systemClock } from "../../src/lib/clock.ts";
import type { Attempt } from "../../src/providers/attempt.ts";
import { ClientDisconnectedError } from "../../src/lib/disconnect-signal.ts";
import { answer, closeAll, upstreamErrorOf, open, refuse, serve, setUp } from "../support/failover.ts";
import { eventually } from "../support/eventually.ts";
import { testProvider } from "../support/provider.ts";

afterEach(closeAll);

/** Reads a response to its end, until its connection is kept for the next request. */
async function endOf(attempt: Attempt): Promise<void> {
  await new Promise((resolve) => {
    attempt.pipe({ onEvent: () => undefined, onBatch: () => undefined, onEnd: resolve });
  });
  for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
}

describe("asking again", () => {
  it("asks the only provider again, so often as the rule says, and says that it has", async () => {
    const { url, asked } = await serve(refuse(500));
    const provider = open("a", { baseUrl: url, breaker: { failures: 9, windowMs: 1000, openMs: 1000 } });
    const fault = await upstreamErrorOf(setUp().ask([provider]));
    expect(asked).toHaveLength(3);
    expect(fault).toMatchObject({ attempts: 3, provider: "a", facts: { kind: "server_error", status: 500 } });
    expect(fault.toAppError().extras.shouldRetry).toBe(false);
    expect(provider.health.stats).toMatchObject({ asked: 3, retries: 2, failed: 3, inFlight: 0 });
  });

  it("gives the answer of the request that succeeded", async () => {
    let requests = 0;
    const { url } = await serve((response, request) => {
      (++requests < 3 ? refuse(503) : answer)(response, request);
    });
    const provider = open("a", { baseUrl: url, breaker: { failures: 9, windowMs: 1000, openMs: 1000 } });
    const { ask, adapted } = setUp();
    const { attempt, retries } = await ask([provider]);
    expect(retries).toBe(2);
    expect(adapted).toEqual(["a too much", "a too much", "a good"]);
    attempt.cancel(new Error("enough"));
    expect(provider.health.stats.inFlight).toBe(0);
  });

  it.each([400, 413, 422])("never asks anyone again after %i, and does not blame the provider", async (status) => {
    const first = await serve(refuse(status));
    const second = await serve(answer);
    const providers = [open("a", { baseUrl: first.url }), open("b", { baseUrl: second.url })];
    const { ask, log } = setUp();
    const fault = await upstreamErrorOf(ask(providers));
    expect(fault).toMatchObject({ attempts: 1, facts: { kind: "bad_request" } });
    expect([first.asked.length, second.asked.length]).toEqual([1, 0]);
    expect(providers[0]?.health.stats.failed).toBe(0);
    expect(log.lines).toMatchObject([
      { level: "info", facts: { status, path: "/chat/completions", kind: "bad_request" } },
    ]);
  });

  it("asks another provider at once, and the one that timed out never again", async () => {
    const silent = await serve(() => undefined);
    const timeouts = { ...testProvider("x").timeouts, firstByte: 40 };
    const alone = open("a", { baseUrl: silent.url, timeouts });
    expect(await upstreamErrorOf(setUp().ask([alone]))).toMatchObject({ attempts: 1, facts: { kind: "timeout" } });
    const { url } = await serve(answer);
    expect((await setUp().ask([alone, open("b", { baseUrl: url })])).attempt.provider.name).toBe("b");
    expect(silent.asked).toHaveLength(2);
  });

  it.each(["reset", "end"])(
    "sends what met a kept connection's %s again at once, blames nobody, and is not held up by the budget",
    async (how) => {
      let isFirst = true;
      const used = new Set<unknown>();
      const waiting: (() => void)[] = [];
      const { url, asked } = await serve((response, request) => {
        const { socket } = request;
        if (!isFirst && used.has(socket)) {
          if (how === "reset") socket.resetAndDestroy();
          else socket.end();
          return;
        }
        used.add(socket);
        waiting.push(() => {
          answer(response, request);
        });
        // All at once, so that each has a connection of its own.
        if (!isFirst || waiting.length === 20) for (const give of waiting.splice(0)) give();
      });
      const provider = open("a", { baseUrl: url });
      const { ask, log, adapted } = setUp();
      let repeats = 0;
      const all = async (): Promise<void> => {
        const responses = await Promise.all(Array.from({ length: 20 }, () => ask([provider])));
        for (const { attempt, retries } of responses) {
          repeats += retries;
          await endOf(attempt);
        }
      };
      await all();
      isFirst = false;
      await all();
      // More than the budget would allow.
      expect(repeats).toBeGreaterThan(10);
      expect(asked).toHaveLength(40 + repeats);
      expect(provider.health.stats).toMatchObject({ failed: 0, retries: repeats, inFlight: 0 });
      expect(provider.health.retryBudget.tryTake()).toBe(true);
      expect(adapted).toEqual(Array(40).fill("a good"));
      expect(log.lines).toEqual([]);
    },
  );

  it("sends it no more often than the rule says", async () => {
    const used = new Set<unknown>();
    const { url, asked } = await serve((response, request) => {
      if (used.has(request.socket)) request.socket.resetAndDestroy();
      else answer(response, request);
      used.add(request.socket);
    });
    const provider = open("a", { baseUrl: url });
    const { ask } = setUp({ attempts: 1 });
    await endOf((await ask([provider])).attempt);
    expect(await upstreamErrorOf(ask([provider]))).toMatchObject({ attempts: 1, facts: { kind: "network" } });
    expect(asked).toHaveLength(2);
    expect(provider.health.stats.failed).toBe(0);
  });

  it("blames a provider that closes new connections, and a kept one in the middle of its answer's head", async () => {
    let requests = 0;
    const { url, asked } = await serve((response, { socket }) => {
      if (++requests === 1) {
        response.writeHead(200, { "content-type": "text/event-stream" });
        response.end('data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n');
      } else if (requests === 2) socket.end("HTTP/1.1 200 OK\r\ncontent-");
      else socket.resetAndDestroy();
    });
    const provider = open("a", { baseUrl: url, breaker: { failures: 9, windowMs: 1000, openMs: 1000 } });
    const { ask } = setUp({ attempts: 1 });
    await endOf((await ask([provider])).attempt);
    for (const count of [1, 2]) {
      expect(await upstreamErrorOf(ask([provider]))).toMatchObject({ attempts: 1, facts: { kind: "network" } });
      expect(provider.health.stats.failed).toBe(count);
    }
    expect(asked).toHaveLength(3);
  });

  it("passes over a provider where the request has no place, as if it were not there", async () => {
    const [down, up] = [await serve(refuse(500)), await serve(answer)];
    const providers = ["a", "b", "c"].map((name) => open(name, { baseUrl: name === "c" ? up.url : down.url }));
    const { ask, signal } = setUp();
    const asked: string[] = [];
    const { attempt, retries } = await ask(providers, "alice", "m", (name) => asked.push(name) > 0 && name !== "b");
    expect([asked, attempt.provider.name, retries]).toEqual([["a", "b", "c"], "c", 1]);
    attempt.cancel(new Error("enough"));
    expect(down.asked).toHaveLength(1);

    const nowhere = await upstreamErrorOf(ask(providers, "alice", "m", () => Promise.resolve(false)));
    expect(nowhere).toMatchObject({ attempts: 0, facts: { kind: "unavailable" } });
    const leaving = ask(providers, "alice", "m", () => (signal.gone = true));
    await expect(leaving).rejects.toBeInstanceOf(ClientDisconnectedError);
    signal.gone = false;
    const failing = ask([open("d", { baseUrl: up.url })], "alice", "m", () => Promise.reject(new Error("lost")));
    await expect(failing).rejects.toThrow();
    expect(providers.map(({ health }) => [health.stats.inFlight, health.stats.asked])).toEqual([
      [0, 1],
      [0, 0],
      [0, 1],
    ]);
  });

  it("says whose times hold for the client: each provider's while it is asked, and the one's that answers", async () => {
    const [down, up] = [await serve(refuse(500)), await serve(answer)];
    const own = (heartbeat: number) => ({ timeouts: { ...testProvider("x").timeouts, heartbeat } });
    const { ask, followed } = setUp();
    await ask([open("a", { baseUrl: down.url, ...own(1) }), open("b", { baseUrl: up.url, ...own(2) })]);
    expect(followed).toEqual([1, null, 2]);
  });

  it("goes on to the next key at once where a key is limited, and leaves that key alone for so long", async () => {
    const { url, asked } = await serve((response, request) => {
      const limited = request.headers.authorization === "Bearer one";
      (limited ? refuse(429, { "retry-after": "600" }) : answer)(response, request);
    });
    const keys = ["one", "two"].map((apiKey, keyIndex) => open("a", { baseUrl: url, apiKey, keyIndex }));
    const { ask, log } = setUp();
    for (let i = 0; i < 3; i++) (await ask(keys)).attempt.cancel(new Error("enough"));
    expect(asked).toEqual(["Bearer one", "Bearer two", "Bearer two", "Bearer two"]);
    expect(JSON.stringify(log.lines)).not.toMatch(/Bearer|"one"/);
    expect(keys[0]?.health.accountState(systemClock.monotonic())).toBe("closed");
  });

  it("does not take another key for another provider where the whole provider fails", async () => {
    const broken = await serve(refuse(500));
    const { url } = await serve(answer);
    const keys = ["one", "two"].map((apiKey, keyIndex) => open("a", { baseUrl: broken.url, apiKey, keyIndex }));
    const { attempt } = await setUp().ask([...keys, open("b", { baseUrl: url })]);
    expect(attempt.provider.name).toBe("b");
    expect(broken.asked).toEqual(["Bearer one"]);
  });

  it("waits as long as Retry-After says, then asks again", async () => {
    let requests = 0;
    const at: number[] = [];
    const { url } = await serve((response, request) => {
      at.push(systemClock.monotonic());
      (++requests === 1 ? refuse(429, { "retry-after": "0.08" }) : answer)(response, request);
    });
    await setUp().ask([open("a", { baseUrl: url })]);
    expect((at[1] ?? 0) - (at[0] ?? 0)).toBeGreaterThanOrEqual(79);
  });

  it("never comes back before a limit is over, however the timer rounds", async () => {
    for (let ms = 1; ms <= 10; ms++) {
      let requests = 0;
      const { url } = await serve((response, request) => {
        (++requests === 1 ? refuse(429, { "retry-after": String(ms / 997) }) : answer)(response, request);
      });
      await setUp({ baseMs: 0, maxMs: 0, maxRetryAfterMs: 100 }).ask([open("a", { baseUrl: url })]);
      expect(requests).toBe(2);
    }
  });

  it("does not wait for a Retry-After above the cap, and asks nobody else in that time either", async () => {
    const { url, asked } = await serve(refuse(429, { "retry-after": "30" }));
    const provider = open("a", { baseUrl: url });
    const { ask } = setUp();
    expect(await upstreamErrorOf(ask([provider]))).toMatchObject({ attempts: 1, facts: { retryAfterMs: 30_000 } });
    const second = await upstreamErrorOf(ask([provider]));
    expect(second).toMatchObject({ attempts: 0, facts: { kind: "rate_limited" } });
    expect(second.facts.retryAfterMs).toBeGreaterThan(28_000);
    expect(second.toAppError()).toMatchObject({ status: 429, code: "upstream_rate_limited" });
    expect(asked).toHaveLength(1);
  });

  it("does not hammer a dead provider: its repeats run out, and come back with a fifth of the traffic", async () => {
    const { url, asked } = await serve(refuse(500));
    const provider = open("a", { baseUrl: url, breaker: { failures: 1e6, windowMs: 1000, openMs: 1000 } });
    const { ask } = setUp();
    for (let i = 0; i < 100; i++) await upstreamErrorOf(ask([provider]));
    expect(asked.length).toBeGreaterThanOrEqual(100 + 10);
    expect(asked.length).toBeLessThanOrEqual(100 + 10 + 20);
  });

  it("stops waiting at once when the client leaves, and asks no more", async () => {
    const { url, asked } = await serve(refuse(500));
    const { ask, signal } = setUp({ baseMs: 60_000, maxMs: 60_000 });
    const provider = open("a", { baseUrl: url, timeouts: { ...testProvider("x").timeouts, total: 1e6 } });
    const asking = ask([provider]);
    const outcome = expect(asking).rejects.toBeInstanceOf(ClientDisconnectedError);
    await eventually(() => {
      expect(provider.health.stats.failed).toBe(1);
    });
    // The failure is known; one candidate later the pause has begun.
    await new Promise((resolve) => setImmediate(resolve));
    signal.gone = true;
    signal.onGone?.();
    await outcome;
    expect(signal.onGone).toBeUndefined();
    expect(asked).toHaveLength(1);
  });

  it("does not begin a pause that would outlast the request's total time", async () => {
    const { url, asked } = await serve(refuse(500));
    const timeouts = { ...testProvider("x").timeouts, total: 5000 };
    const fault = await upstreamErrorOf(
      setUp({ baseMs: 60_000, maxMs: 60_000 }).ask([open("a", { baseUrl: url, timeouts })]),
    );
    expect(fault.attempts).toBe(1);
    expect(asked).toHaveLength(1);
  });

  it("counts the total time from the first request on, whoever was asked", async () => {
    const silent = await serve(() => undefined);
    const slow = (firstByte: number, total: number) => ({ ...testProvider("x").timeouts, firstByte, total });
    const first = open("a", { baseUrl: silent.url, timeouts: slow(1000, 10_000) });
    // From its own start on, its first byte would be late before its total time is over.
    const second = open("b", { baseUrl: silent.url, timeouts: slow(1600, 2000) });
    const fault = await upstreamErrorOf(setUp().ask([first, second]));
    expect(fault).toMatchObject({ attempts: 2, facts: { kind: "timeout", stage: "total" } });
    // The second one had no fair chance.
    expect(second.health.circuits(systemClock.monotonic())).toEqual([]);
  });

  it("says how the provider that knows the model has failed, not that another one doesn't know it", async () => {
    const [broken, other] = [await serve(refuse(500)), await serve(refuse(404, {}, "no such model"))];
    const providers = [open("a", { baseUrl: broken.url }), open("b", { baseUrl: other.url })];
    const fault = await upstreamErrorOf(setUp({ attempts: 2 }).ask(providers));
    expect(fault).toMatchObject({ attempts: 2, provider: "a", facts: { kind: "server_error" } });
    const [unknown] = providers.slice(1);
    expect(await upstreamErrorOf(setUp().ask(unknown === undefined ? [] : [unknown]))).toMatchObject({
      facts: { kind: "model_unknown" },
    });
  });

  it("alerts where a key is refused or an account is empty, and takes the next key", async () => {
    const { url } = await serve((response, request) => {
      const key = request.headers.authorization;
      (key === "Bearer one" ? refuse(401) : key === "Bearer two" ? refuse(402) : answer)(response, request);
    });
    const keys = ["one", "two", "three"].map((apiKey, keyIndex) => open("a", { baseUrl: url, apiKey, keyIndex }));
    const { ask, alerts } = setUp();
    const { attempt } = await ask(keys);
    expect(attempt.provider.keyIndex).toBe(2);
    expect(alerts).toEqual(["a 0 key_refused", "a 1 no_balance"]);
  });
});
