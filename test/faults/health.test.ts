import { fc } from "../support/fast-check.ts";
import { afterEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { connectionsUnderFileLimit } from "../../src/lib/files/open-file-limit.ts";
import { Deadlines } from "../../src/providers/deadlines.ts";
import { kindOfConnectionError, UpstreamError, type UpstreamErrorFacts } from "../../src/providers/upstream-error.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { Breaker, refused } from "../../src/providers/breaker.ts";
import { ProviderHealth } from "../../src/providers/provider-health.ts";
import { closeAll, upstreamErrorOf, open, serve, setUp } from "../support/failover.ts";
import { testProvider } from "../support/provider.ts";

afterEach(closeAll);

const rule = { failures: 5, windowMs: 30_000, openMs: 15_000, users: 2 };
const serverError: UpstreamErrorFacts = { kind: "server_error", stage: "first_event", status: 500 };

/** Sends a request that fails; false where it was not let in. */
function fail(
  health: ProviderHealth,
  model: string,
  user: string,
  facts: UpstreamErrorFacts = serverError,
  now = 0,
): boolean {
  const pass = health.enter({ model, user }, now);
  if (pass === null) return false;
  health.sent();
  health.failed(pass, new UpstreamError(facts), now);
  return true;
}

function succeed(health: ProviderHealth, model: string, user: string, now = 0): boolean {
  const pass = health.enter({ model, user }, now);
  if (pass === null) return false;
  health.sent();
  health.responded(pass, 10, now);
  health.completed();
  return true;
}

const isOpen = (health: ProviderHealth, model: string, now = 0): boolean => health.circuitMs(model, now) > 0;

/** Failures of a model, before its answer and in the middle of it. */
const ofModel: readonly UpstreamErrorFacts[] = [
  serverError,
  { kind: "overloaded", stage: "first_event", status: 503 },
  { kind: "truncated", stage: "streaming" },
  { kind: "invalid_response", stage: "first_event", status: 200 },
  { kind: "timeout", stage: "first_byte" },
  { kind: "network", stage: "streaming" },
];

/** Failures of the whole account. */
const ofAccount: readonly UpstreamErrorFacts[] = [
  { kind: "network", stage: "connect" },
  { kind: "timeout", stage: "connect" },
  { kind: "key_refused", stage: "first_event", status: 401 },
  { kind: "no_balance", stage: "first_event", status: 402 },
];

describe("P1: one sick model does not take its provider down", () => {
  test.each(ofModel)("$kind at $stage opens the circuit of its model alone", (facts) => {
    const health = new ProviderHealth(rule);
    for (let i = 0; i < 6; i++) fail(health, "sick", `user${i}`, facts);
    expect(isOpen(health, "sick")).toBe(true);
    expect(isOpen(health, "well")).toBe(false);
    expect(succeed(health, "well", "alice")).toBe(true);
  });

  test.each(ofAccount)("$kind at $stage opens the circuit of the account", (facts) => {
    const health = new ProviderHealth(rule);
    for (let i = 0; i < 6; i++) fail(health, `model${i}`, `user${i}`, facts);
    expect(isOpen(health, "another model")).toBe(true);
  });

  test.each([...ofModel, ...ofAccount])("one user alone opens nothing: $kind at $stage", (facts) => {
    const health = new ProviderHealth(rule);
    for (let i = 0; i < 1000; i++) expect(fail(health, "good", "mallory", facts)).toBe(true);
    expect(isOpen(health, "good")).toBe(false);
  });

  test("nor does one user with a single failure of somebody else", () => {
    const health = new ProviderHealth(rule);
    for (let i = 0; i < 1000; i++) fail(health, "good", "mallory");
    fail(health, "good", "alice");
    expect(isOpen(health, "good")).toBe(false);
  });

  test("successes before the first failure count", () => {
    const health = new ProviderHealth(rule);
    for (let i = 0; i < 20; i++) succeed(health, "m", `user${i}`, 1000);
    for (let i = 0; i < 6; i++) fail(health, "m", `user${i}`, serverError, 1001);
    expect(isOpen(health, "m", 1001)).toBe(false);
  });

  test("failures are forgotten by user as well, however busy the model is", () => {
    const health = new ProviderHealth(rule);
    let now = 0;
    for (let i = 0; i < 3; i++) fail(health, "m", "alice", serverError, now);
    for (; now < 100_000; now += 1000) succeed(health, "m", "bob", now);
    const later = now + 60_000;
    for (let i = 0; i < 4; i++) fail(health, "m", "carol", serverError, later);
    expect(isOpen(health, "m", later)).toBe(false);
    for (let i = 0; i < 3; i++) fail(health, "m", "alice", serverError, later);
    expect(isOpen(health, "m", later)).toBe(true);
  });

  test("an answer that breaks off is a failure, and no success besides", () => {
    const health = new ProviderHealth(rule);
    for (let i = 0; i < 8; i++) succeed(health, "m", `user${i}`);
    for (let i = 0; i < 8; i++) {
      const pass = health.enter({ model: "m", user: `user${i}` }, 0);
      if (pass === null) throw new Error("not let in");
      health.sent();
      health.responded(pass, 1, 0);
      health.failed(pass, new UpstreamError({ kind: "truncated", stage: "streaming" }), 0);
    }
    expect(isOpen(health, "m")).toBe(true);
  });

  test("a connection that breaks once the request was sent speaks against the model that was asked", async () => {
    const { url } = await serve((response) => response.socket?.resetAndDestroy());
    const provider = open("a", { baseUrl: url, breaker: { ...rule, failures: 2 } });
    const { ask } = setUp({ attempts: 1 });
    for (const user of ["alice", "bob"]) {
      const fault = await upstreamErrorOf(ask([provider], user, "sick"));
      expect(fault.facts).toMatchObject({ kind: "network", stage: "first_byte" });
    }
    const now = systemClock.monotonic();
    expect(isOpen(provider.health, "sick", now)).toBe(true);
    expect(isOpen(provider.health, "well", now)).toBe(false);
  });

  test("a connection that cannot be made speaks against the account", async () => {
    const provider = open("a", { baseUrl: "http://127.0.0.1:9", breaker: { ...rule, failures: 2 } });
    const { ask } = setUp({ attempts: 1 });
    for (const user of ["alice", "bob"]) {
      expect((await upstreamErrorOf(ask([provider], user))).facts).toMatchObject({ kind: "network", stage: "connect" });
    }
    expect(isOpen(provider.health, "another model", systemClock.monotonic())).toBe(true);
  });

  test("ten thousand names of models take no more room than a thousand, and an open circuit is not forgotten for them", () => {
    const health = new ProviderHealth(rule);
    for (let i = 0; i < 6; i++) fail(health, "sick", `user${i}`);
    for (let i = 0; i < 10_000; i++) fail(health, `made-up-${i}`, "mallory", serverError, i * 1000);
    expect(health.circuits(0).length).toBeLessThanOrEqual(100);
  });

  test("names that a client makes up push no open circuit and no limit out", () => {
    const health = new ProviderHealth(rule);
    for (let model = 0; model < 15; model++) {
      for (const user of ["alice", "bob"]) for (let i = 0; i < 5; i++) fail(health, `sick-${model}`, user);
    }
    fail(health, "limited", "alice", { kind: "rate_limited", stage: "first_event", retryAfterMs: 60_000 });
    for (let i = 0; i < 10_000; i++) fail(health, `made-up-${i}`, "mallory", serverError, 1);
    for (let model = 0; model < 15; model++) expect(isOpen(health, `sick-${model}`, 1)).toBe(true);
    expect(health.enter({ model: "limited", user: "bob" }, 1)).toBeNull();
  });
});

describe("P2: a sole candidate is never refused outright", () => {
  test("a share of requests passes from the start, grows with time, and a success raises it at once", () => {
    const breaker = new Breaker({ ...rule, failures: 1, users: 1 });
    breaker.failed(0, 0);
    const passing = (from: number): number =>
      Array.from({ length: 100 }, (_, i) => breaker.enterAsTrial(from + i)).filter((ticket) => ticket !== refused)
        .length;
    const early = passing(0);
    expect(early).toBeGreaterThan(0);
    expect(early).toBeLessThan(20);
    const later = passing(7_500);
    expect(later).toBeGreaterThan(2 * early);
    expect(passing(15_000)).toBe(100);
  });

  test("a provider that is well again at once is in full service after three trials, whatever the time", () => {
    const breaker = new Breaker({ ...rule, failures: 1, users: 1 });
    breaker.failed(0, 0);
    let sent = 0;
    for (let trials = 0; trials < 3; sent++) {
      const ticket = breaker.enterAsTrial(1);
      if (ticket === refused) continue;
      trials++;
      breaker.succeeded(ticket, 1);
    }
    expect(breaker.state(1)).toBe("closed");
    expect(sent).toBeLessThan(10);
  });

  test("whatever happened, one of the next twenty requests passes", () => {
    const act = fc.record({ what: fc.constantFrom("fail", "succeed", "wait"), ms: fc.nat(20_000) });
    fc.assert(
      fc.property(fc.array(act, { maxLength: 100 }), (acts) => {
        const breaker = new Breaker({ ...rule, failures: 2, users: 1 });
        let now = 0;
        for (const { what, ms } of acts) {
          if (what === "wait") now += ms;
          const ticket = breaker.enterAsTrial(now);
          if (ticket === refused) continue;
          if (what === "fail") breaker.failed(ticket, now);
          else breaker.succeeded(ticket, now);
        }
        const passed = Array.from({ length: 20 }, () => breaker.enterAsTrial(now)).some((ticket) => ticket !== refused);
        expect(passed).toBe(true);
      }),
    );
  });
});

describe("P5: a Retry-After concerns the model that was asked", () => {
  const limited = (retryAfterMs: number): UpstreamErrorFacts => ({
    kind: "rate_limited",
    stage: "first_event",
    retryAfterMs,
  });

  test.each([
    limited(120_000),
    { ...serverError, retryAfterMs: 120_000 },
    { kind: "overloaded", stage: "first_event", retryAfterMs: 120_000 } as const,
  ])("a window of $kind closes one model", (facts) => {
    const health = new ProviderHealth(rule);
    fail(health, "a", "alice", facts);
    expect(health.limitedMs("a", 0)).toBe(120_000);
    expect(health.limitedMs("b", 0)).toBe(0);
    expect(succeed(health, "b", "bob")).toBe(true);
  });

  test("the account is limited where several models say so, until the first of them may be asked again", () => {
    const health = new ProviderHealth(rule);
    fail(health, "a", "alice", limited(120_000));
    // One user may go through all the models that have a limit of their own.
    fail(health, "b", "alice", limited(60_000));
    expect(health.limitedMs("c", 0)).toBe(0);
    fail(health, "d", "bob", limited(90_000));
    expect(health.limitedMs("c", 0)).toBe(60_000);
    expect(health.limitedMs("c", 60_000)).toBe(0);
    expect(health.limitedMs("a", 60_000)).toBe(60_000);
  });

  test.each(["bad_request", "content_refused", "forbidden", "model_unknown", "proxy_overloaded"] as const)(
    "a client's fault, or ours, closes nothing: %s",
    (kind) => {
      const health = new ProviderHealth(rule);
      fail(health, "a", "alice", { kind, stage: "first_event", status: 400, retryAfterMs: 120_000 });
      expect(health.limitedMs("a", 0)).toBe(0);
    },
  );

  test("P6: a window never shrinks", () => {
    const health = new ProviderHealth(rule);
    const [first, second] = ["alice", "bob"].map((user) => health.enter({ model: "a", user }, 0));
    if (first == null || second == null) throw new Error("not let in");
    health.failed(first, new UpstreamError(limited(30_000)), 0);
    health.failed(second, new UpstreamError({ kind: "rate_limited", stage: "first_event" }), 10);
    expect(health.limitedMs("a", 10)).toBe(29_990);
  });
});

describe("P9: the time to the first event runs from the start, whatever the stage", () => {
  const timeouts = { ...testProvider("x").timeouts, firstByte: 60_000, firstEvent: 40, idle: 60_000, total: 60_000 };

  test("before there are headers", async () => {
    const { url } = await serve(() => undefined);
    const fault = await upstreamErrorOf(setUp({ attempts: 1 }).ask([open("a", { baseUrl: url, timeouts })]));
    expect(fault.facts).toMatchObject({ kind: "timeout" });
  });

  test("an error whose body does not end is told by its status, soon", () => {
    vi.useFakeTimers();
    onTestFinished(() => {
      vi.useRealTimers();
    });
    const ended: string[] = [];
    const clock = { now: () => Date.now(), monotonic: () => Date.now() };
    const listener = { onDeadline: (at: string) => ended.push(at), onGraceOver: () => undefined };
    const deadlines = new Deadlines({ ...timeouts, firstEvent: 60_000 }, clock, listener);
    deadlines.start(Date.now());
    vi.advanceTimersByTime(1000);
    deadlines.toStage("first_event");
    deadlines.endWithin(5000);
    vi.advanceTimersByTime(4999);
    expect(ended).toEqual([]);
    vi.advanceTimersByTime(1);
    expect(ended).toEqual(["first_event"]);
  });

  test("behind headers and heartbeats", async () => {
    const { url } = await serve((response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      const beat = setInterval(() => response.write(": keep-alive\n\n"), 5);
      response.on("close", () => {
        clearInterval(beat);
      });
    });
    // Long enough for the headers to be there, also on a busy machine.
    const patient = { ...timeouts, firstEvent: 1000 };
    const fault = await upstreamErrorOf(setUp({ attempts: 1 }).ask([open("a", { baseUrl: url, timeouts: patient })]));
    expect(fault.facts).toMatchObject({ kind: "timeout", stage: "first_event" });
  });
});

describe("P10: what this machine lacks is not the provider's fault", () => {
  const withCode = (code: string): Error => Object.assign(new Error(code), { code });

  const codes = [
    "EMFILE",
    "ENFILE",
    "EADDRNOTAVAIL",
    "EADDRINUSE",
    "ENOMEM",
    "ENOBUFS",
    "EAI_MEMORY",
    "EPERM",
    "EACCES",
  ];
  test.each(codes)("%s, wherever it stands", (code) => {
    const kinds = [
      withCode(code),
      new Error("connect failed", { cause: withCode(code) }),
      new AggregateError([withCode("ECONNREFUSED"), withCode(code)]),
    ].map(kindOfConnectionError);
    expect(kinds).toEqual(["proxy_overloaded", "proxy_overloaded", "proxy_overloaded"]);
    const health = new ProviderHealth(rule);
    for (let i = 0; i < 100; i++) fail(health, "m", `user${i}`, { kind: "proxy_overloaded", stage: "connect" });
    expect(isOpen(health, "m")).toBe(false);
  });

  test("no way out is, unless another address of the provider's could be tried", () => {
    const all = new AggregateError([withCode("ENETUNREACH"), withCode("ENETUNREACH")]);
    expect([all, withCode("ENETUNREACH")].map(kindOfConnectionError)).toEqual(["proxy_overloaded", "proxy_overloaded"]);
    const one = new AggregateError([withCode("ENETUNREACH"), withCode("ECONNREFUSED")]);
    expect(kindOfConnectionError(Object.assign(one, { code: "ENETUNREACH" }))).toBe("network");
  });

  test.each(["ECONNREFUSED", "ECONNRESET", "ENOTFOUND", "CERT_HAS_EXPIRED"])("%s is the provider's", (code) => {
    expect(kindOfConnectionError(withCode(code))).toBe("network");
    expect(kindOfConnectionError(withCode("UND_ERR_CONNECT_TIMEOUT"))).toBe("timeout");
  });

  test("connections are accepted up to half of what the limit of open files leaves", () => {
    const limits = (soft: string) => () =>
      `Limit     Soft Limit  Hard Limit  Units\nMax open files            ${soft}   4096   files\n`;
    expect(connectionsUnderFileLimit(limits("256"))).toBe(96);
    expect(connectionsUnderFileLimit(limits("10"))).toBe(8);
    expect(connectionsUnderFileLimit(limits("unlimited"))).toBeUndefined();
    expect(
      connectionsUnderFileLimit(() => {
        throw new Error("no such file");
      }),
    ).toBeUndefined();
  });
});
