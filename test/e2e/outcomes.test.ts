import { describe, expect, it } from "vitest";
import { chatBody, estimatedPrompt, nothing, priced, startBilledProxy, weight } from "../support/billed-proxy.ts";
import { eventually } from "../support/eventually.ts";
import type { ScriptedUpstream } from "../support/scripted-upstream.ts";

type UpstreamCall = Awaited<ReturnType<ScriptedUpstream["next"]>>;

const usageChunk = (usage: object | null, finish_reason: string | null = null, content = "") => ({
  choices: [{ index: 0, delta: { content }, finish_reason }],
  usage,
});

describe.each([
  ["streamed", true],
  ["collected", false],
])("an answer that is complete and %s is charged", (_, stream) => {
  /** Asks, lets `play` answer, and returns once the client has all of it. */
  async function chat(play: (call: UpstreamCall) => Promise<void>) {
    const billed = await startBilledProxy();
    const asking = stream ? billed.open() : billed.collect();
    const call = await billed.upstream.next();
    await play(call);
    const answer = await asking;
    expect(answer.status).toBe(200);
    if ("rest" in answer) expect((await answer.rest()).at(-1)?.data).toBe("[DONE]");
    else expect(await answer.json()).toMatchObject({ object: "chat.completion" });
    return { used: await billed.used(), line: await billed.logged() };
  }

  it("by the usage that the provider reports, to the nano-unit", async () => {
    const { used, line } = await chat(async (call) => {
      await call.delta("so much");
      await call.finish({
        prompt_tokens: 333,
        completion_tokens: 77,
        total_tokens: 410,
        prompt_cache_hit_tokens: 111,
        completion_tokens_details: { reasoning_tokens: 55 },
      });
    });
    expect(used).toEqual(priced(333, 77, { cached: 111, reasoning: 55 }));
    expect(line).toMatchObject({ outcome: "completed", requests: weight, cost_nano: used[2], estimated: false });
  });

  it("by the last usage where it is reported over and over", async () => {
    const { used, line } = await chat(async (call) => {
      for (const completion_tokens of [1, 2, 3]) {
        await call.event(usageChunk({ prompt_tokens: 20, completion_tokens }));
      }
      await call.event(usageChunk({ prompt_tokens: 20, completion_tokens: 4 }, "stop"));
      await call.event({ choices: [], usage: { prompt_tokens: 21, completion_tokens: 5 } });
      await call.done();
      call.end();
    });
    expect(used).toEqual(priced(21, 5));
    expect(line.estimated).toBe(false);
  });

  it("nothing but its request where the usage is zero", async () => {
    const { used, line } = await chat(async (call) => {
      await call.delta("free");
      await call.finish({ prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 });
    });
    expect(used).toEqual([weight, 0, 0]);
    expect(line).toMatchObject({ outcome: "completed", input_tokens: 0, output_tokens: 0, estimated: false });
  });

  it.each([
    ["is missing", null],
    ["makes no sense", { prompt_tokens: -1, completion_tokens: "many" }],
  ])("by an estimate, flagged as one, where the usage %s", async (_why, usage) => {
    const { used, line } = await chat(async (call) => {
      await call.delta("one");
      await call.delta("two");
      await call.finish(usage);
    });
    expect(used).toEqual(priced(estimatedPrompt(stream), 2));
    expect(line).toMatchObject({ outcome: "completed", input_tokens: estimatedPrompt(stream), estimated: true });
  });
});

describe("an answer that its provider breaks off", () => {
  const quick = "[timeouts]\nidle_seconds = 0.3\nfirst_event_seconds = 0.3\n";

  it.each<[string, string, (call: UpstreamCall) => unknown]>([
    [
      "ends without a finish_reason",
      "upstream_truncated",
      (call) => {
        call.end();
      },
    ],
    [
      "resets the connection",
      "upstream_error",
      (call) => {
        call.reset();
      },
    ],
    ["sends an error", "upstream_overloaded", (call) => call.event({ error: { message: "busy", code: "overloaded" } })],
    ["stalls", "upstream_timeout", (call) => call.comment()],
    ["sends what is no JSON", "upstream_invalid_response", (call) => call.send("data: {oops\n\n")],
    [
      "has reported usage and ends without a finish_reason",
      "upstream_truncated",
      async (call) => {
        await call.event(usageChunk({ prompt_tokens: 100, completion_tokens: 100 }));
        call.end();
      },
    ],
  ])("is rolled back to nothing where it %s", async (_, code, fail) => {
    const billed = await startBilledProxy({ config: quick });
    const opening = billed.open();
    const call = await billed.upstream.next();
    await call.delta("one");
    const client = await opening;
    await client.nextEvent();
    await fail(call);
    const last = (await client.rest()).at(-1);
    expect(last?.json?.error?.code).toBe(code);
    expect(await billed.used()).toEqual(nothing);
    expect(await billed.logged()).toMatchObject({ outcome: "upstream_failed", code, requests: 0, cost_nano: 0 });
    await call.closed;
  });

  it.each<[string, number, (call: UpstreamCall) => unknown]>([
    [
      "refuses",
      502,
      (call) => {
        call.respond(500, { error: { message: "no" } });
      },
    ],
    [
      "ends",
      502,
      (call) => {
        call.end();
      },
    ],
    ["sends an error", 503, (call) => call.event({ error: { message: "busy", code: "overloaded" } })],
    ["sends comments alone", 504, (call) => call.comment()],
  ])("costs nothing where it %s before the first event", async (_, status, fail) => {
    const billed = await startBilledProxy({ config: quick });
    const asking = billed.collect();
    await fail(await billed.upstream.next());
    expect((await asking).status).toBe(status);
    expect(await billed.used()).toEqual(nothing);
    expect(await billed.logged()).toMatchObject({ outcome: "upstream_failed", requests: 0, cost_nano: 0 });
  });
});

describe("an answer whose budget runs out", () => {
  /** Of the limit, the prompt is held with two bytes a token, then 10 tokens of output, then steps of 256. */
  const held = Math.ceil(JSON.stringify(chatBody(true)).length / 2);
  const maxTokens = held + 10 + 256 + 20;
  /** The first step fits, of the second what there is room for. */
  const shown = 10 + 256 + 20;
  const word = `data: ${JSON.stringify(usageChunk(null, null, "word"))}\n\n`;
  /** As in the 402 of a request that is refused, so that clients can say what is left and when there is more. */
  const exhausted = {
    metric: "tokens",
    per: "total",
    used: expect.any(Number) as number,
    reserved: expect.any(Number) as number,
    limit: maxTokens,
    reset_at: null,
  };

  it.each([
    ["one by one", 1],
    ["all at once", 400],
  ])("is cut with an error event, and charged for what was shown of it: events %s", async (_, atOnce) => {
    const billed = await startBilledProxy({ maxTokens });
    const opening = billed.open();
    const call = await billed.upstream.next();
    for (let sent = 0; sent < 400; sent += atOnce) {
      await Promise.race([call.send(word.repeat(atOnce)).catch(() => undefined), call.closed]);
    }
    const client = await opening;
    const events = await client.rest();
    expect(events.at(-1)?.json?.error).toMatchObject({ code: "quota_exceeded_midstream", details: exhausted });
    expect(events.map(({ data }) => data)).not.toContain("[DONE]");
    expect(events).toHaveLength(shown + 1);
    await call.closed;
    const [requests, tokens = 0] = await billed.used();
    expect(requests).toBe(weight);
    expect(tokens).toBeGreaterThanOrEqual(estimatedPrompt(true) + shown);
    expect(tokens).toBeLessThanOrEqual(maxTokens);
    expect(await billed.logged()).toMatchObject({
      outcome: "quota_cut",
      code: "quota_exceeded_midstream",
      estimated: true,
    });
  });

  it("is a 402 that costs nothing where one JSON was asked for", async () => {
    const billed = await startBilledProxy({ maxTokens });
    const asking = billed.collect();
    const call = await billed.upstream.next();
    void call.send(word.repeat(400)).catch(() => undefined);
    const answer = await asking;
    expect(answer.status).toBe(402);
    expect(await answer.json()).toMatchObject({
      error: { code: "quota_exceeded_midstream", details: exhausted },
    });
    await call.closed;
    expect(await billed.used()).toEqual(nothing);
    expect(await billed.logged()).toMatchObject({ outcome: "quota_cut", requests: 0, cost_nano: 0 });
  });
});

describe("an answer that is no longer read", () => {
  it("costs its request and an estimate once the reader has stalled for too long", async () => {
    const billed = await startBilledProxy({ config: "[timeouts]\nstalled_reader_seconds = 0.3\n" });
    const opening = billed.open();
    const call = await billed.upstream.next();
    await call.delta("one");
    const client = await opening;
    client.pause();
    // More than the kernel buffers between the three sides.
    for (let sent = 0; sent < 24; sent++) void call.delta("x".repeat(1 << 20)).catch(() => undefined);
    await call.closed;
    const line = await billed.logged();
    expect(line).toMatchObject({ outcome: "reader_stalled", requests: weight, estimated: true });
    expect(line.input_tokens).toBe(estimatedPrompt(true));
    expect(line.output_tokens).toBeGreaterThan(1);
    await eventually(async () => {
      expect(await billed.used()).toEqual(priced(line.input_tokens, line.output_tokens));
    });
  });
});
