import { afterEach, describe, expect, it } from "vitest";
import { systemClock } from "../../src/lib/clock.ts";
import { createFailover } from "../../src/providers/failover.ts";
import { UpstreamError } from "../../src/providers/upstream-error.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { passFor } from "../support/provider.ts";
import { answer, closeAll, upstreamErrorOf, open, refuse, serve, setUp } from "../support/failover.ts";

afterEach(closeAll);

describe("providers out of service", () => {
  it("are not asked while drained, and are again once restored", async () => {
    const { url, asked } = await serve(answer);
    const provider = open("a", { baseUrl: url });
    provider.health.drained = true;
    const { ask } = setUp();
    const fault = await upstreamErrorOf(ask([provider]));
    expect(fault.toAppError()).toMatchObject({ status: 503, code: "upstream_unavailable" });
    expect(fault.toAppError().extras.retryAfterSeconds).toBeGreaterThan(0);
    expect(asked).toEqual([]);
    provider.health.drained = false;
    (await ask([provider])).attempt.cancel(new Error("enough"));
  });

  it("are asked by few while their circuit is open, and the others hear when to come back", async () => {
    const { url, asked } = await serve(refuse(500));
    const provider = open("a", { baseUrl: url, breaker: { failures: 2, windowMs: 10_000, openMs: 20_000 } });
    const { ask } = setUp();
    expect((await upstreamErrorOf(ask([provider]))).attempts).toBe(2);
    // The first trial may come at once.
    expect((await upstreamErrorOf(ask([provider]))).attempts).toBe(1);
    const fault = await upstreamErrorOf(ask([provider]));
    expect(fault).toMatchObject({ attempts: 0, facts: { kind: "unavailable", retryAfterMs: 1000 } });
    expect(asked).toHaveLength(3);
  });

  it("never keep a probe's place that its request could not use", async () => {
    const { url } = await serve(answer);
    const provider = open("a", { baseUrl: url, breaker: { failures: 1, windowMs: 1000, openMs: 0 } });
    const broken = new UpstreamError({ kind: "server_error", stage: "first_event" });
    provider.health.sent();
    provider.health.failed(passFor("m"), broken, systemClock.monotonic());
    const { signal } = setUp();
    const dispatch = createFailover({
      clock: systemClock,
      random: () => 0,
      alerts: { raise: () => undefined },
      caps: { adapt: () => undefined },
      log: createCapturedLog(),
    });
    const request = {
      api: "chat" as const,
      collects: false,
      choices: 1,
      canDropStreamOptions: () => false,
      bodyFor: (): Buffer => {
        throw new Error("no body");
      },
    };
    const route = { model: "m", upstreamModel: "m", candidates: [provider] };
    const retry = { attempts: 1, baseMs: 1, maxMs: 1, maxRetryAfterMs: 0 };
    await expect(
      dispatch(route, request, signal, { traceId: "t", user: "alice", retry, trace: null, takePlace: null }),
    ).rejects.toThrow("no body");
    expect(provider.health.stats.inFlight).toBe(0);
    (await setUp().ask([provider])).attempt.cancel(new Error("enough"));
  });
});
