import { afterEach, describe, expect, it, onTestFinished } from "vitest";
import { UpstreamError } from "../../src/providers/upstream-error.ts";
import { createModelList } from "../../src/providers/model-list.ts";
import type { ProviderHealth } from "../../src/providers/provider-health.ts";
import { failureReason } from "../../src/providers/read-text.ts";
import { answer, closeAll, open, serve } from "../support/failover.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { bearer, post, startProxy } from "../support/start-proxy.ts";

afterEach(closeAll);

const rule = { failures: 2, windowMs: 30_000, openMs: 15_000, users: 2 };

function chat(health: ProviderHealth, now: number, fault?: UpstreamError, user = "alice"): void {
  const pass = health.enter({ model: "deepseek-flash", user }, now);
  if (pass === null) throw new Error("not let in");
  health.sent();
  if (fault !== undefined) health.failed(pass, fault, now);
  else {
    health.responded(pass, 10, now);
    health.completed();
  }
}

const refused = new UpstreamError({ kind: "network", stage: "connect" });
const broken = new UpstreamError({ kind: "server_error", stage: "first_event", status: 500 });

/** A provider whose list of models is answered with a status; 0: never. */
async function lister(statuses: { status: number }) {
  const { url } = await serve((response) => {
    if (statuses.status > 0) response.writeHead(statuses.status).end('{"data":[]}');
  });
  const provider = open("a", { baseUrl: url, breaker: rule });
  const clock = createManualClock(0);
  const list = createModelList({ providers: [provider], aliases: {}, clock });
  const { health } = provider;
  return { clock, health, list, reach: async () => (await list.reachability())[0] };
}

describe("O5: a provider counts as reached", () => {
  it.each([500, 503, 401, 403])("where chats work, though its list of models is %i", async (status) => {
    const { clock, health, reach } = await lister({ status });
    expect(await reach()).toEqual({ provider: "a", ok: false, reason: `status ${status}` });
    chat(health, clock.monotonic());
    expect(await reach()).toEqual({ provider: "a", ok: true, reason: `status ${status}` });
    clock.advance(24 * 3_600_000);
    expect(await reach()).toMatchObject({ ok: true });
  });

  it("by its list again once that has worked after the last chat", async () => {
    const upstream = { status: 200 };
    const { clock, health, reach } = await lister(upstream);
    chat(health, clock.monotonic());
    clock.advance(60_000);
    expect(await reach()).toEqual({ provider: "a", ok: true });
    clock.advance(60_000);
    upstream.status = 500;
    expect(await reach()).toMatchObject({ ok: false });
  });

  it("no more where its circuits have opened since", async () => {
    const { clock, health, reach } = await lister({ status: 500 });
    chat(health, clock.monotonic());
    for (const user of ["alice", "bob"]) chat(health, clock.monotonic(), refused, user);
    expect(await reach()).toEqual({
      provider: "a",
      ok: false,
      reason: "status 500",
      circuits: [{ key: 0, model: "*", state: "open" }],
    });
  });

  it("while some models fail, as long as others answer", async () => {
    const { clock, health, reach } = await lister({ status: 500 });
    chat(health, clock.monotonic());
    for (const user of ["alice", "bob"]) chat(health, clock.monotonic(), broken, user);
    const circuits = [{ key: 0, model: "deepseek-flash", state: "open" }];
    expect(await reach()).toEqual({ provider: "a", ok: true, reason: "status 500", circuits });
    clock.advance(60_000);
    expect(await reach()).toMatchObject({ ok: false, circuits: [{ state: "half_open" }] });
  });

  it("or not, without a wait for one that hangs; what it last told counts meanwhile", async () => {
    const upstream = { status: 200 };
    const { clock, reach } = await lister(upstream);
    expect(await reach()).toEqual({ provider: "a", ok: true });
    upstream.status = 0;
    clock.advance(60_000);
    expect(await reach()).toEqual({ provider: "a", ok: true });
    const hanging = await lister({ status: 0 });
    expect(await hanging.reach()).toEqual({ provider: "a", ok: false, reason: "no answer within 0.5 s" });
  });
});

describe("O5: the reason", () => {
  it.each([
    ["a time that has run out", new DOMException("late", "TimeoutError"), "no answer within 3 s"],
    ["an error with a number for a code", new DOMException("gone", "AbortError"), "no answer"],
    ["a refused connection", Object.assign(new Error(), { code: "ECONNREFUSED" }), "ECONNREFUSED"],
    ["no JSON", new SyntaxError("x"), "no JSON"],
    ["no error at all", 23, "no answer"],
  ])("says %s in words", (_, error, words) => {
    expect(failureReason(error, 3000)).toBe(words);
  });
});

it.each([500, 0])("O5: /healthz is 200 where chats work and the list of models fails (%i; 0 hangs)", async (status) => {
  const { url } = await serve((response, request) => {
    if (request.method === "POST") answer(response, request);
    else if (status > 0) response.writeHead(status).end();
  });
  const proxy = await startProxy({ upstreamUrl: url });
  onTestFinished(() => proxy.dispose());
  const body = { model: "deepseek-flash", messages: [{ role: "user", content: "hi" }], stream: true };
  const chatted = await post(`${proxy.url}/v1/chat/completions`, body, bearer(await proxy.login()));
  expect(await chatted.text()).toContain("[DONE]");
  const health = await fetch(`${proxy.url}/healthz`);
  expect(health.status).toBe(200);
  const { checks } = (await health.json()) as { checks: { upstream: object } };
  const reason = status === 0 ? "no answer within 0.5 s" : "status 500";
  expect(checks.upstream).toEqual({ ok: true, providers: [{ provider: expect.any(String), ok: true, reason }] });
});
