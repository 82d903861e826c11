import { describe, expect, it } from "vitest";
import { nothing, priced, startBilledProxy, weight, type BilledOptions } from "../support/billed-proxy.ts";
import {
  created,
  lastEvent,
  outputDelta,
  opened,
  responseText,
  responseUsage,
  wholeResponse,
} from "../support/response-events.ts";

const path = "/v1/responses";
const body = { model: "flash", max_output_tokens: 10, instructions: "Be brief.", input: "Hello" };
const streamed = { ...body, stream: true };
const { input, output, cached, reasoning } = responseUsage;
const exact = priced(input, output, { cached, reasoning });
const estimatedPrompt = Math.ceil(JSON.stringify(streamed).length / 4);

/** A streamed response of which the first event has come. */
async function reading(options: BilledOptions = {}, asked: object = streamed) {
  const billed = await startBilledProxy(options);
  const asking = billed.ask(path, asked);
  const call = await billed.upstream.next();
  await call.send(created);
  const client = await asking;
  await client.nextEvent();
  return { ...billed, call, client };
}

describe("a response", () => {
  it("is streamed byte for byte, with its own last event and no [DONE], and billed by what that reports", async () => {
    const { call, client, used, logged } = await reading();
    expect(call.url).toBe("/responses");
    expect(call.body).toEqual(streamed);
    await call.send([...responseText, lastEvent()].join(""));
    call.end();
    expect(await client.ended).toBe("complete");
    expect(client.text).toBe([created, ...responseText, lastEvent()].join(""));
    expect(client.headers["content-type"]).toMatch(/^text\/event-stream/);
    expect(await used()).toEqual(exact);
    expect(await logged()).toMatchObject({
      api: "responses",
      outcome: "completed",
      estimated: false,
      input_tokens: 20,
    });
  });

  it("is collected into one JSON where no stream is wanted", async () => {
    const billed = await startBilledProxy();
    const asking = billed.ask("/responses", body);
    const call = await billed.upstream.next();
    expect(call.body).toEqual(streamed);
    await call.send([created, ...responseText, lastEvent()].join(""));
    call.end();
    const client = await asking;
    await client.ended;
    expect(client.headers["content-type"]).toMatch(/^application\/json/);
    expect(JSON.parse(client.text)).toEqual(wholeResponse());
    expect(await billed.used()).toEqual(exact);
  });

  it.each([true, false])(
    "may come whole though a stream was requested, and ends as it should (stream: %s)",
    async (stream) => {
      const billed = await startBilledProxy();
      const asking = billed.ask(path, { ...body, stream });
      (await billed.upstream.next()).respond(200, wholeResponse());
      const client = await asking;
      await client.ended;
      if (stream) {
        expect(client.text).toMatch(/^event: response.created\n/);
        expect(client.text).toContain('"delta":"Hello 你好 🎉"');
        expect(client.text.split("\n\n").at(-2)).toMatch(/^event: response.completed\n/);
      } else expect(client.text).toBe(JSON.stringify(wholeResponse()));
      expect(await billed.used()).toEqual(exact);
    },
  );

  it("is complete with its last event, whatever the connection does afterwards", async () => {
    const { call, client, used } = await reading();
    await call.send(
      [...responseText, lastEvent("incomplete", { incomplete_details: { reason: "max_output_tokens" } })].join(""),
    );
    await client.nextEvent();
    call.reset();
    expect((await client.rest()).at(-1)?.event).toBe("response.incomplete");
    expect(await client.ended).toBe("complete");
    expect(await used()).toEqual(exact);
  });

  it("has its usage estimated by its deltas where the provider reports none", async () => {
    const { call, client, used, logged } = await reading();
    await call.send([...responseText, lastEvent("completed", { usage: null })].join(""));
    call.end();
    await client.ended;
    expect(await used()).toEqual(priced(estimatedPrompt, 2));
    expect(await logged()).toMatchObject({ outcome: "completed", estimated: true });
  });
});

describe("a response that breaks off", () => {
  it.each([
    ["ends without its last event", "upstream_truncated", null],
    ["is reset", "upstream_error", "reset"],
    [
      "fails by its own word",
      "upstream_error",
      lastEvent("failed", { error: { code: "server_error", message: "no" } }),
    ],
    [
      "sends an error event",
      "upstream_overloaded",
      'event: error\ndata: {"type":"error","code":"overloaded","message":"no"}\n\n',
    ],
  ])("because the provider %s ends with response.failed, and costs nothing", async (_, code, end) => {
    const { call, client, used, logged } = await reading();
    await call.send(opened.join("") + outputDelta("Hel", 3));
    await client.nextEvent();
    if (end === "reset") call.reset();
    else if (end !== null) await call.send(end);
    if (end !== "reset") call.end();
    const last = (await client.rest()).at(-1);
    expect(last?.event).toBe("response.failed");
    expect(last?.json).toMatchObject({
      type: "response.failed",
      sequence_number: 4,
      response: {
        id: "resp_1",
        model: "flash",
        status: "failed",
        error: { code, trace_id: client.headers["x-request-id"] },
      },
    });
    expect(await client.ended).toBe("complete");
    expect(await used()).toEqual(nothing);
    expect(await logged()).toMatchObject({ outcome: "upstream_failed", code });
  });

  it("before its first event, after all retries, is a stream that Codex takes for final", async () => {
    const billed = await startBilledProxy({ attempts: 2 });
    const asking = billed.ask(path, streamed);
    for (let attempt = 0; attempt < 2; attempt++)
      (await billed.upstream.next()).respond(500, { error: { message: "no" } });
    const client = await asking;
    expect(client.status).toBe(200);
    const events = await client.rest();
    expect(events.map(({ event }) => event)).toEqual(["response.created", "response.failed"]);
    expect(events[1]?.json).toMatchObject({
      response: { error: { code: "server_is_overloaded", proxy_code: "upstream_error" } },
    });
    expect(await billed.used()).toEqual(nothing);
    expect(await billed.logged()).toMatchObject({ outcome: "upstream_failed", code: "upstream_error", status: 200 });
  });

  it("keeps its status where one JSON is wanted, and where it is the client's own fault", async () => {
    const billed = await startBilledProxy();
    const whole = billed.ask(path, body);
    (await billed.upstream.next()).respond(500, { error: { message: "no" } });
    expect((await whole).status).toBe(502);
    const wrong = billed.ask(path, streamed);
    (await billed.upstream.next()).respond(400, {
      error: { message: "bad item", param: "input", code: "invalid_value" },
    });
    const client = await wrong;
    await client.ended;
    expect(client.status).toBe(400);
    expect(JSON.parse(client.text)).toMatchObject({
      error: { message: "bad item", param: "input", code: "invalid_value" },
    });
    expect(await billed.used()).toEqual(nothing);
  });

  it("because the budget is used up ends with response.failed, and costs what was shown", async () => {
    const asked = { model: "flash", stream: true, input: "Hello" };
    const prompt = Math.ceil(JSON.stringify(asked).length / 4);
    const config = "[quota]\nmax_output_tokens = 1\nreserve_bytes_per_token = 4\n";
    const { call, client, used, logged } = await reading({ maxTokens: prompt + 3, config }, asked);
    await call.send(opened.join("") + Array.from({ length: 6 }, (_, at) => outputDelta("a", 3 + at)).join(""));
    const events = await client.rest();
    expect(events.filter(({ event }) => event === "response.output_text.delta")).toHaveLength(3);
    expect(events.at(-1)?.json).toMatchObject({
      type: "response.failed",
      sequence_number: 6,
      response: {
        error: { code: "insufficient_quota", proxy_code: "quota_exceeded_midstream", details: { metric: "tokens" } },
      },
    });
    expect(await used()).toEqual(priced(prompt, 3));
    expect(await logged()).toMatchObject({ outcome: "quota_cut", code: "quota_exceeded_midstream" });
  });
});

describe("a request to the Responses API", () => {
  it("gets heartbeats that keep Codex waiting, once its response has an id", async () => {
    const config = "[timeouts]\nheartbeat_seconds = 0.05\n";
    const billed = await startBilledProxy({ config });
    const asking = billed.ask(path, streamed);
    const call = await billed.upstream.next();
    const client = await asking;
    expect((await client.nextEvent())?.comment).toBe("keep-alive");
    await call.send(created + opened.join(""));
    let event = await client.nextEvent();
    while (event?.event !== "response.in_progress") event = await client.nextEvent();
    expect(event.json).toMatchObject({ sequence_number: 2, response: { id: "resp_1", status: "in_progress" } });
    await call.send(responseText.slice(2).join("") + lastEvent());
    call.end();
    expect((await client.rest()).at(-1)?.event).toBe("response.completed");
    expect(await billed.used()).toEqual(exact);
  });

  it("beyond the quota is refused as OpenAI does it, with the facts of the quota", async () => {
    const billed = await startBilledProxy({ maxTokens: 5 });
    const client = await billed.ask(path, streamed);
    await client.ended;
    expect(client.status).toBe(429);
    expect(client.headers).toMatchObject({ "x-should-retry": "false" });
    // Clients would wait for it, until the period is over; Codex ends at once without.
    expect(client.headers["retry-after"]).toBeUndefined();
    expect(JSON.parse(client.text)).toMatchObject({
      error: { type: "insufficient_quota", code: "quota_exceeded", details: { metric: "tokens", limit: 5 } },
    });
    expect(billed.upstream.received).toBe(0);
  });

  it("is not kept in the shared account of a provider that keeps responses", async () => {
    const billed = await startBilledProxy({ kind: "openai" });
    const asking = billed.ask(path, streamed);
    const call = await billed.upstream.next();
    expect(call.body).toEqual({ ...streamed, store: false });
    await call.send(created + lastEvent());
    call.end();
    await (
      await asking
    ).ended;
    const kept = await billed.ask(path, { ...streamed, previous_response_id: "resp_1" });
    await kept.ended;
    expect(kept.status).toBe(400);
    expect(JSON.parse(kept.text)).toMatchObject({ error: { code: "invalid_request", param: "previous_response_id" } });
    expect((await billed.used())[0]).toBe(weight);
  });

  it("is refused where no provider of the model has the API", async () => {
    const billed = await startBilledProxy({ kind: "zhipu" });
    const client = await billed.ask(path, streamed);
    await client.ended;
    expect(client.status).toBe(404);
    expect(JSON.parse(client.text)).toMatchObject({
      error: { code: "model_not_found", message: 'No provider of the model "flash" offers the Responses API.' },
    });
  });
});
