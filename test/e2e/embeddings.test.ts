import OpenAI from "openai";
import { describe, expect, it, onTestFinished } from "vitest";
import { nothing, priced, startBilledProxy, weight } from "../support/billed-proxy.ts";
import { usedRequests } from "../support/quota.ts";
import { startProxy, upstreamKey } from "../support/start-proxy.ts";

const body = { model: "flash", input: ["one", "two"] };
/** Spelled as no JSON.stringify would, to see that it is passed on as it is. */
const answer =
  '{ "object":"list", "data":[{"object":"embedding","index":0,"embedding":[1.0e-2, -0.50]}],\n "model":"flash","usage":{"prompt_tokens":6,"total_tokens":6}}';

async function startAsking(kind: "openai" | "zhipu" = "openai", sent: object = body) {
  const billed = await startBilledProxy({ kind });
  const asking = billed.ask("/v1/embeddings", sent);
  return { ...billed, asking, call: await billed.upstream.next() };
}

describe("embeddings", () => {
  it.each([
    ["openai", "/v1/embeddings"],
    ["zhipu", "/embeddings"],
  ] as const)("of %s are passed on byte for byte at %s, and billed by the prompt", async (kind, path) => {
    const billed = await startBilledProxy({ kind });
    const asking = billed.ask(path, body);
    const call = await billed.upstream.next();
    expect(call.url).toBe("/embeddings");
    expect(call.body).toEqual(body);
    expect(call.headers.accept).toBe("application/json");
    call.head(200, { "content-type": "application/json; charset=utf-8" });
    for (const piece of [answer.slice(0, 5), answer.slice(5, 50), answer.slice(50)]) await call.send(piece);
    expect(await billed.used().catch((error: unknown) => String(error))).toContain("running");
    call.end();
    const client = await asking;
    await client.ended;
    expect(client.status).toBe(200);
    expect(client.text).toBe(answer);
    expect(client.headers["content-type"]).toMatch(/^application\/json/);
    expect(await billed.used()).toEqual(priced(6, 0));
    expect(await billed.logged()).toMatchObject({ outcome: "completed", estimated: false, output_tokens: 0 });
  });

  it("are charged the prompt's estimate where their usage is missing", async () => {
    const { used, logged, asking, call } = await startAsking();
    call.respond(200, { object: "list", data: [] });
    expect((await asking).status).toBe(200);
    const estimate = Math.ceil(JSON.stringify(body).length / 4);
    expect(await logged()).toMatchObject({ estimated: true, input_tokens: estimate, requests: weight });
    expect(await used()).toEqual(priced(estimate, 0));
  });

  it("of many kilobytes are no output that a budget could cut", async () => {
    const billed = await startBilledProxy({ kind: "openai", maxTokens: 200 });
    const asking = billed.ask("/v1/embeddings", body);
    const call = await billed.upstream.next();
    const data = [{ object: "embedding", index: 0, embedding: Array.from({ length: 20_000 }, (_, i) => i / 7) }];
    call.respond(200, { object: "list", data, usage: { prompt_tokens: 6, total_tokens: 6 } });
    const client = await asking;
    await client.ended;
    expect(JSON.parse(client.text)).toMatchObject({ data });
    expect(await billed.used()).toEqual(priced(6, 0));
  });

  it.each<[string, number, string, unknown, number, string]>([
    ["an error status", 500, "application/json", { error: { message: "no" } }, 502, "upstream_error"],
    ["an error behind a 200", 200, "application/json", { error: { code: "overloaded" } }, 503, "upstream_overloaded"],
    ["no JSON", 200, "application/json", "{oops", 502, "upstream_invalid_response"],
    ["no list", 200, "application/json", { data: 1 }, 502, "upstream_invalid_response"],
    ["an event stream", 200, "text/event-stream", "data: {}\n\n", 502, "upstream_invalid_response"],
    ["a refused key", 401, "application/json", { error: { message: upstreamKey } }, 503, "upstream_unavailable"],
  ])("that come as %s cost nothing", async (_, status, type, sent, shown, code) => {
    const { used, logged, asking, call, proxy } = await startAsking();
    call.respond(status, sent, { "content-type": type });
    const client = await asking;
    await client.ended;
    expect(client.status).toBe(shown);
    expect(JSON.parse(client.text)).toMatchObject({ error: { code } });
    expect(client.text + proxy.logLines.join("")).not.toContain(upstreamKey);
    expect(await used()).toEqual(nothing);
    expect(await logged()).toMatchObject({ outcome: "upstream_failed", requests: 0 });
  });

  it("that break off in mid-JSON cost nothing, and are asked for again", async () => {
    const billed = await startBilledProxy({ kind: "openai", config: "base_ms = 1\n", attempts: 2 });
    const asking = billed.ask("/v1/embeddings", body);
    const first = await billed.upstream.next();
    first.head(200, { "content-type": "application/json" });
    await first.send(answer.slice(0, 60));
    first.reset();
    (await billed.upstream.next()).respond(200, answer, { "content-type": "application/json" });
    const client = await asking;
    await client.ended;
    expect(client.text).toBe(answer);
    expect(await billed.used()).toEqual(priced(6, 0));
  });

  it("whose client leaves cost nothing, and the provider is left too", async () => {
    const { used, asking, call, proxy } = await startAsking();
    asking.catch(() => undefined);
    call.head(200, { "content-type": "application/json" });
    await call.send(answer.slice(0, 60));
    proxy.server.app.server.closeAllConnections();
    await call.closed;
    expect(call.left).toBe(true);
    await expect.poll(() => used().catch((error: unknown) => String(error))).toEqual(nothing);
  });

  it("are a 404 where the provider has none, as DeepSeek", async () => {
    const billed = await startBilledProxy();
    const client = await billed.ask("/v1/embeddings", body);
    await client.ended;
    expect(client.status).toBe(404);
    expect(JSON.parse(client.text)).toMatchObject({
      error: { code: "model_not_found", message: 'No provider of the model "flash" offers embeddings.' },
    });
    expect(await billed.used()).toEqual(nothing);
  });

  it.each([
    ["model", { input: "a" }],
    ["input", { model: "flash" }],
    ["input", { model: "flash", input: [] }],
    ["input", { model: "flash", input: { text: "a" } }],
  ])("are refused for a wrong %s", async (param, wrong) => {
    const billed = await startBilledProxy({ kind: "openai" });
    const client = await billed.ask("/embeddings", wrong);
    await client.ended;
    expect(client.status).toBe(400);
    expect(JSON.parse(client.text)).toMatchObject({ error: { code: "invalid_request", param } });
  });

  it("come through the OpenAI SDK from the built-in simulator", async () => {
    const proxy = await startProxy();
    onTestFinished(() => proxy.dispose());
    const token = await proxy.login();
    const openai = new OpenAI({ apiKey: token, baseURL: `${proxy.url}/v1`, maxRetries: 0 });
    const list = await openai.embeddings.create({ model: "sim-fast", input: ["a", "b"], dimensions: 16 });
    expect(list.data.map(({ embedding }) => embedding.length)).toEqual([16, 16]);
    const again = await openai.embeddings.create({ model: "sim-fast", input: "a", encoding_format: "float" });
    expect(Math.hypot(...(again.data[0]?.embedding ?? []))).toBeCloseTo(1);
    expect(await usedRequests(proxy, token)).toBe(2);
  });
});
