import OpenAI from "openai";
import { afterEach, describe, expect, it } from "vitest";
import { createSimulator, type Simulator } from "../../src/simulator/server.ts";
import { eventually } from "../support/eventually.ts";
import { usedRequests } from "../support/quota.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";
import { openStream } from "../support/sse-client.ts";
import { alicePassword, bearer, startProxy, userFile, type RunningProxy } from "../support/start-proxy.ts";

const messages = [{ role: "user" as const, content: "hello" }];
const shared = `
[rate_limit]
requests_per_second = 100000
[quota.tiers]
basic = { requests = 1000000 }
`;

const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function startSimulator(): Promise<Simulator> {
  const simulator = await createSimulator({ firstTokenMs: 0, tokensPerSecond: 0, keepAliveMs: 20 });
  closers.push(() => simulator.close());
  return simulator;
}

async function startScripted(): Promise<ScriptedUpstream> {
  const upstream = await startScriptedUpstream();
  closers.push(() => upstream.close());
  return upstream;
}

/** A proxy with the providers "first" and "second", asked in this order. */
async function start(first: string, second: string, options: { own?: string; config?: string; retry?: string } = {}) {
  const provider = (name: string, url: string, priority: number, rest = "") =>
    `[[providers]]\nname = "${name}"\nkind = "deepseek"\nbase_url = "${url}"\nmodels = ["*"]\npriority = ${priority}\n${rest}\n`;
  const proxy = await startProxy({
    config: `${shared}[retry]\nbase_ms = 1\nmax_ms = 2\n${options.retry ?? ""}\n${options.config ?? ""}\n${provider("first", first, 0, options.own)}${provider("second", second, 1)}`,
    env: { DEEPSEEK_API_KEY: "sk-test-one, sk-test-two" },
    users: {
      alice: userFile("alice", alicePassword, "max_parallel = 1000\n"),
      bob: userFile("bob", alicePassword, "max_parallel = 1000\n"),
    },
  });
  closers.push(() => proxy.dispose());
  return { proxy, token: await proxy.login() };
}

function ask(proxy: RunningProxy, token: string, model = "sim-fast", stream = true) {
  return openStream(`${proxy.url}/chat/completions`, { headers: bearer(token), body: { model, stream, messages } });
}

describe("two providers of which one fails", () => {
  it.each([
    "sim-429:30",
    "sim-401",
    "sim-402",
    "sim-500",
    "sim-503",
    "sim-html",
    "sim-reset",
    "sim-silent",
    "sim-empty",
    "sim-reset-mid:0",
    "sim-error-first",
    "sim-stall-first",
  ])("serve everybody while one answers %s, and charge each once", async (fault) => {
    const [first, second] = [await startSimulator(), await startSimulator()];
    // Only the bad one is short of time: the other must be let alone on a slow machine.
    const times = "timeouts = { first_byte_seconds = 0.5, first_event_seconds = 0.5 }";
    const own = `model_map = { "sim-fast" = "${fault}" }\n${times}`;
    const { proxy, token } = await start(first.url, second.url, { own });
    const total = 170;
    const failed: string[] = [];
    // One user's failures would open no circuit.
    const tokens = [token, await proxy.login("bob")];
    const worker = async (count: number, own: string): Promise<void> => {
      for (let i = 0; i < count; i++) {
        const client = await ask(proxy, own);
        const text = (await client.ended) === "complete" ? client.text : "";
        if (client.status !== 200 || !text.endsWith("data: [DONE]\n\n") || text.includes('"error"')) {
          failed.push(`${client.status} ${client.text.slice(-200)}`);
        }
      }
    };
    await Promise.all(Array.from({ length: 17 }, (_, i) => worker(total / 17, tokens[i % 2] ?? token)));
    expect(failed).toEqual([]);
    const used = await Promise.all(tokens.map((one) => usedRequests(proxy, one)));
    expect(used.reduce((sum, one) => sum + one)).toBe(total);
    expect(second.stats().requests).toBe(total);
    // What fails is soon taken out of rotation: its circuit opens, or its Retry-After is kept, for both keys.
    expect(first.stats().requests).toBeLessThan(60);
    await eventually(() => {
      expect(proxy.services.concurrency.inFlight()).toBe(0);
      for (const { inFlight } of proxy.services.providerAdmin.list()) expect(inFlight).toBe(0);
    });
  });

  it("get no more requests than a rule by provider allows; the others are told when to come back", async () => {
    const [first, second] = [await startScripted(), await startScripted()];
    const answerAll = async (upstream: ScriptedUpstream, status: number, body: object): Promise<void> => {
      for (;;) (await upstream.next(60_000)).respond(status, body);
    };
    answerAll(first, 500, { error: { message: "down" } }).catch(() => undefined);
    const choices = [{ index: 0, message: { role: "assistant", content: "hi" }, finish_reason: "stop" }];
    answerAll(second, 200, { id: "1", object: "chat.completion", model: "m", choices }).catch(() => undefined);
    const limit = '[[limits]]\nname = "each"\nby = "provider"\nper = "hour"\nmax = 2\n';
    const { proxy, token } = await start(first.url, second.url, { config: limit });
    for (let asked = 1; asked <= 12; asked++) {
      const client = await ask(proxy, token, "m", false);
      await client.ended;
      expect([asked, client.status]).toEqual([asked, asked <= 2 ? 200 : 429]);
      if (client.status === 200) continue;
      const error: unknown = JSON.parse(client.text);
      expect(error).toMatchObject({ error: { code: "rate_limited", details: { rule: "each" } } });
      expect(Number(client.headers["retry-after"])).toBeGreaterThan(1700);
      expect(Number(client.headers["retry-after"])).toBeLessThanOrEqual(1800);
    }
    expect(second.received).toBe(2);
    expect(await usedRequests(proxy, token)).toBe(2);
  });

  it("go on behind a heartbeat that has already committed the 200", async () => {
    const [first, second] = [await startScripted(), await startScripted()];
    const { proxy, token } = await start(first.url, second.url, { config: "[timeouts]\nheartbeat_seconds = 0.05\n" });
    const client = await ask(proxy, token);
    const call = await first.next();
    // The 200 and a comment are here, and nobody has answered.
    expect(client.status).toBe(200);
    expect((await client.nextEvent())?.comment).toBe("keep-alive");
    call.respond(500, { error: { message: "no" } });
    const other = await second.next();
    await other.delta("from the second");
    await other.finish();
    const events = (await client.rest()).filter(({ data }) => data !== undefined);
    expect(events[0]?.json?.choices[0].delta.content).toBe("from the second");
    expect(events.at(-1)?.data).toBe("[DONE]");
    expect(await usedRequests(proxy, token)).toBe(1);
  });

  it("tell of the last failure by an error event where a heartbeat has committed the 200, and charge nothing", async () => {
    const [first, second] = [await startScripted(), await startScripted()];
    const { proxy, token } = await start(first.url, second.url, { config: "[timeouts]\nheartbeat_seconds = 0.05\n" });
    const client = await ask(proxy, token);
    await client.nextEvent();
    for (const upstream of [first, second, first]) {
      (await upstream.next()).respond(503, { error: { message: "sk-secret is busy" } });
    }
    const events = (await client.rest()).filter(({ data }) => data !== undefined);
    expect(events).toHaveLength(1);
    expect(events[0]?.json?.error).toMatchObject({ code: "upstream_overloaded" });
    expect(client.text).not.toContain("sk-secret");
    expect(await usedRequests(proxy, token)).toBe(0);
  });

  it("never show or charge a second answer once the first event is out", async () => {
    const [first, second] = [await startScripted(), await startScripted()];
    const { proxy, token } = await start(first.url, second.url);
    const opening = ask(proxy, token);
    const call = await first.next();
    await call.delta("half");
    const client = await opening;
    await client.nextEvent();
    call.reset();
    const events = await client.rest();
    expect(events.at(-1)?.json?.error).toMatchObject({ code: "upstream_error" });
    expect(second.received).toBe(0);
    expect(await usedRequests(proxy, token)).toBe(0);
  });

  it("leave both alone at once when the client leaves during a pause", async () => {
    const [first, second] = [await startScripted(), await startScripted()];
    const { proxy, token } = await start(first.url, second.url, { retry: "attempts = 9\n" });
    let leave = (): void => undefined;
    const opening = openStream(`${proxy.url}/chat/completions`, {
      headers: bearer(token),
      body: { model: "m", stream: true, messages },
      onSent: (go) => (leave = go),
    });
    opening.catch(() => undefined);
    // Both keys of both providers are limited then, and the request waits for the first that is free again.
    for (const upstream of [first, first, second, second]) {
      (await upstream.next()).respond(429, {}, { "retry-after": "4" });
    }
    await eventually(() => {
      expect(proxy.services.providerAdmin.list().map(({ failed }) => failed)).toEqual([2, 2]);
    });
    expect(proxy.services.gateway.running()).toBe(1);
    leave();
    await eventually(() => {
      expect(proxy.services.gateway.running()).toBe(0);
      expect(proxy.services.concurrency.inFlight()).toBe(0);
    }, 2000);
    expect(first.received + second.received).toBe(4);
    expect(await usedRequests(proxy, token)).toBe(0);
  });

  it("are asked under their own names for a model, and drained and restored by hand", async () => {
    const [first, second] = [await startScripted(), await startScripted()];
    const own = 'model_map = { "m" = "their-m" }';
    const { proxy, token } = await start(first.url, second.url, { own });
    const served = async (upstream: ScriptedUpstream): Promise<string> => {
      const opening = ask(proxy, token, "m");
      const call = await upstream.next();
      await call.finish();
      await (
        await opening
      ).ended;
      return String(call.body.model);
    };
    expect(await served(first)).toBe("their-m");
    expect(proxy.services.providerAdmin.drain("first")).toBe(true);
    expect(proxy.services.providerAdmin.list()[0]).toMatchObject({ name: "first", state: "drained" });
    expect(await served(second)).toBe("m");
    expect(proxy.services.providerAdmin.restore("first")).toBe(true);
    expect(await served(first)).toBe("their-m");
    expect(proxy.services.providerAdmin.drain("nobody")).toBe(false);
  });
});

describe("the OpenAI SDK before a proxy that has retried", () => {
  it("does not try again what the proxy has tried, and does what it has not", async () => {
    const [first, second] = [await startSimulator(), await startSimulator()];
    const { proxy, token } = await start(first.url, second.url, { config: "[breaker]\nfailures = 1000\n" });
    const openai = new OpenAI({ apiKey: token, baseURL: `${proxy.url}/v1`, maxRetries: 2 });
    const asked = async (model: string): Promise<number> => {
      const before = first.stats().requests + second.stats().requests;
      await expect(openai.chat.completions.create({ model, messages })).rejects.toBeInstanceOf(OpenAI.APIError);
      return first.stats().requests + second.stats().requests - before;
    };
    expect(await asked("sim-500")).toBe(3);
    expect(await asked("sim-400")).toBe(1);
    // Cut in the middle: nothing the proxy could retry, and the SDK knows that it may.
    expect(await asked("sim-insufficient")).toBeGreaterThan(1);
    expect(await usedRequests(proxy, token)).toBe(0);
  });
});
