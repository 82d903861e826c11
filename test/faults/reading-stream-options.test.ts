import { afterEach, describe, expect, it, onTestFinished } from "vitest";
import { answer, closeAll, open, refuse, serve, setUp } from "../support/failover.ts";
import { testProvider } from "../support/provider.ts";
import { startScriptedUpstream } from "../support/scripted-upstream.ts";
import { openStream } from "../support/sse-client.ts";
import { bearer, startProxy } from "../support/start-proxy.ts";

const messages = [{ role: "user", content: "hi" }];

async function startWith(lines: string) {
  const upstream = await startScriptedUpstream();
  onTestFinished(() => upstream.close());
  const proxy = await startProxy({
    config: `[[providers]]
name = "upstream"
kind = "openai"
api_key_env = "OPENAI_API_KEY"
base_url = "${upstream.url}"
models = ["*"]
${lines}`,
    env: { OPENAI_API_KEY: "sk-test" },
  });
  onTestFinished(() => proxy.dispose());
  const headers = bearer(await proxy.login());
  const ask = (body: object, path = "/chat/completions") =>
    openStream(`${proxy.url}${path}`, { headers, body: { model: "m", messages, ...body } });
  return { upstream, ask, proxy };
}

describe("A7: a provider that doesn't take stream_options", () => {
  afterEach(closeAll);

  it.each([
    ["none", {}],
    ["the wish for usage", { stream_options: { include_usage: true } }],
    ["others", { stream_options: { include_obfuscation: false } }],
  ])("is never sent them where the config says so, and the client has %s", async (_, options) => {
    const { upstream, ask } = await startWith("stream_options = false");
    for (const stream of [true, false]) {
      const asking = ask({ stream, ...options, n: 1 });
      const call = await upstream.next();
      expect(call.body).toEqual({ model: "m", messages, stream: true, n: 1 });
      await call.delta("a");
      await call.finish();
      const client = await asking;
      await client.ended;
      expect(client.status).toBe(200);
    }
  });

  it("is sent them by default", async () => {
    const { upstream, ask } = await startWith("");
    const asking = ask({ stream: true });
    const call = await upstream.next();
    expect(call.body).toMatchObject({ stream_options: { include_usage: true } });
    await call.finish();
    await (
      await asking
    ).ended;
  });

  const refusals: readonly (readonly [string, number, object])[] = [
    ["in its message", 400, { error: { message: "Unknown field: stream_options", type: "invalid_request_error" } }],
    ["by param", 400, { error: { message: "not allowed", param: "stream_options.include_usage" } }],
    [
      "by FastAPI",
      422,
      { detail: [{ type: "extra_forbidden", loc: ["body", "stream_options"], msg: "Extra inputs" }] },
    ],
    ["in a text", 400, { error: "stream_options is not supported" }],
    ["under 200", 200, { error: { code: 400, message: "stream_options: unknown" } }],
  ];

  it.each(refusals)("and says so %s, is asked once more, and remembered", async (_, status, body) => {
    const { upstream, ask, proxy } = await startWith("");
    const asking = ask({ stream: true });
    (await upstream.next()).respond(status, body);
    const again = await upstream.next();
    expect(again.body).toEqual({ model: "m", messages, stream: true });
    await again.delta("a");
    await again.finish();
    const client = await asking;
    expect((await client.rest()).at(-1)?.data).toBe("[DONE]");

    const later = ask({ stream: false });
    const call = await upstream.next();
    expect(call.body).not.toHaveProperty("stream_options");
    await call.finish();
    await (
      await later
    ).ended;
    expect(upstream.received).toBe(3);
    // Of another model nothing is known.
    const other = ask({ model: "other", stream: true });
    const otherCall = await upstream.next();
    expect(otherCall.body).toHaveProperty("stream_options");
    await otherCall.finish();
    await (
      await other
    ).ended;
    expect(proxy.logLines.filter((line) => line.includes("takes no stream_options"))).toHaveLength(1);
    expect(proxy.logLines.filter((line) => line.includes("the provider failed"))).toEqual([]);
  });

  it("is asked once more only, and remembered only where that helps", async () => {
    const { upstream, ask } = await startWith("");
    const [, status, body] = refusals[0] ?? ["", 0, {}];
    for (let round = 0; round < 2; round++) {
      const asking = ask({ stream: true });
      const first = await upstream.next();
      expect(first.body).toHaveProperty("stream_options");
      first.respond(status, body);
      (await upstream.next()).respond(status, body);
      const client = await asking;
      await client.ended;
      expect(client.status).toBe(400);
    }
    expect(upstream.received).toBe(4);
  });

  it.each([
    ["of another status", 500, { error: { message: "stream_options" } }],
    ["that quotes the client", 400, { error: { message: "bad", input: "about stream_options" } }],
    ["of another field", 422, { error: { message: "bad", param: "top_p" } }],
  ])("is not asked once more for an error %s", async (_, status, body) => {
    const { upstream, ask } = await startWith("[retry]\nattempts = 1\n");
    const asking = ask({ stream: true });
    (await upstream.next()).respond(status, body);
    const client = await asking;
    await client.ended;
    expect(client.status).toBeGreaterThanOrEqual(400);
    expect(upstream.received).toBe(1);
  });

  it("is not remembered where a client's prompt speaks of them, for the error may quote it", async () => {
    const { upstream, ask } = await startWith("");
    const prompt = [{ role: "user", content: "Tell me about stream_options." }];
    const asking = ask({ stream: true, messages: prompt });
    (await upstream.next()).respond(400, { error: { message: "flagged: Tell me about stream_options." } });
    await (await upstream.next()).finish();
    expect((await asking).status).toBe(200);
    const later = ask({ stream: true });
    const call = await upstream.next();
    expect(call.body).toHaveProperty("stream_options");
    await call.finish();
    await (
      await later
    ).ended;
  });

  it("is helped, but not remembered, where a client has written others of its own", async () => {
    const { upstream, ask } = await startWith("");
    const asking = ask({ stream: true, stream_options: { include_usage: true, odd: 1 } });
    (await upstream.next()).respond(400, { error: { message: "stream_options.odd: unknown" } });
    const again = await upstream.next();
    expect(again.body).not.toHaveProperty("stream_options");
    await again.finish();
    const client = await asking;
    await client.ended;
    expect(client.status).toBe(200);
    const later = ask({ stream: true });
    const call = await upstream.next();
    expect(call.body).toHaveProperty("stream_options");
    await call.finish();
    await (
      await later
    ).ended;
  });

  it("counts against nobody, and is no retry", async () => {
    const served: unknown[] = [];
    const { url } = await serve((response, request) => {
      served.push(request.headers["content-length"]);
      if (served.length === 1) refuse(400, {}, "unknown field stream_options")(response, request);
      else answer(response, request);
    });
    const provider = open("a", { baseUrl: url });
    const { attempt: attempt, retries } = await setUp({ attempts: 1 }).ask([provider]);
    expect(retries).toBe(0);
    await new Promise<void>((resolve) => {
      attempt.pipe({
        onEvent: () => undefined,
        onBatch: () => undefined,
        onEnd: () => {
          resolve();
        },
      });
    });
    expect(provider.health.stats).toMatchObject({ asked: 2, inFlight: 0, failed: 0, retries: 0 });
    expect(provider.health.circuits(0)).toEqual([]);
    expect(provider.supportsStreamOptions("m")).toBe(true);
  });

  it("is remembered in bounded memory", () => {
    const provider = testProvider("a");
    for (let model = 0; model < 2000; model++) provider.disableStreamOptions(`m${model}`);
    expect(provider.supportsStreamOptions("m0")).toBe(false);
    expect(provider.supportsStreamOptions("m1999")).toBe(true);
  });
});
