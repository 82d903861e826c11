import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createSimulator, type Simulator } from "../../src/simulator/server.ts";
import { openStream, type SseEvent } from "../support/sse-client.ts";

let simulator: Simulator;

beforeAll(async () => {
  simulator = await createSimulator({ firstTokenMs: 0, tokensPerSecond: 0, keepAliveMs: 5 });
});

afterAll(() => simulator.close());

function chat(model: string, extra: object = {}) {
  return openStream(`${simulator.url}/v1/chat/completions`, {
    headers: { authorization: "Bearer key" },
    body: { model, stream: true, messages: [{ role: "user", content: "x".repeat(1000) }], ...extra },
  });
}

/** Reads a whole answer. */
async function answer(model: string, extra: object = {}) {
  const stream = await chat(model, extra);
  const events = await stream.rest();
  return { stream, events, ended: await stream.ended, usages: events.map((event) => event.json?.usage) };
}

function isDone(event: SseEvent | undefined): boolean {
  return event?.data === "[DONE]";
}

function finishOf(events: readonly SseEvent[]): unknown {
  return events.map((event) => event.json?.choices[0].finish_reason).findLast((reason) => reason != null);
}

describe("before the answer", () => {
  test("sim-429 says when to come back", async () => {
    expect((await chat("sim-429:7")).headers["retry-after"]).toBe("7");
  });

  test("sim-html is a page", async () => {
    const stream = await chat("sim-html");
    expect([stream.status, stream.headers["content-type"]]).toEqual([502, "text/html"]);
  });

  test.each([
    [1113, 429],
    [1002, 401],
    [1301, 400],
    [1200, 500],
  ])("sim-zhipu-error:%i is a %i with a string code", async (code, status) => {
    const stream = await chat(`sim-zhipu-error:${code}`);
    await stream.ended;
    expect(stream.status).toBe(status);
    expect(JSON.parse(stream.text).error).toMatchObject({ code: String(code) });
    expect(JSON.parse(stream.text).error).not.toHaveProperty("type");
  });

  test("sim-reset resets before any header", async () => {
    await expect(chat("sim-reset")).rejects.toThrow(/ECONNRESET|hang up/);
  });

  test("sim-silent takes the request and answers nothing", async () => {
    const { open } = simulator.stats();
    let leave: (() => void) | undefined;
    const waiting = openStream(`${simulator.url}/chat/completions`, {
      headers: { authorization: "Bearer key" },
      body: { model: "sim-silent", messages: [{ role: "user", content: "x" }] },
      onSent: (leaveNow) => (leave = leaveNow),
    });
    const failed = expect(waiting).rejects.toThrow();
    await expect.poll(() => simulator.stats().open).toBe(open + 1);
    leave?.();
    await failed;
    await expect.poll(() => simulator.stats().open).toBe(open);
  });
});

describe("endings", () => {
  test("sim-empty ends at once with a 200", async () => {
    const { stream, events, ended } = await answer("sim-empty");
    expect([stream.status, events.length, ended]).toEqual([200, 0, "complete"]);
  });

  test("sim-reset-mid delivers its events and resets", async () => {
    const { events, ended } = await answer("sim-reset-mid:3");
    expect([events.length, ended]).toEqual([3, "aborted"]);
  });

  test("sim-truncate ends cleanly without finish_reason and [DONE]", async () => {
    const { events, ended } = await answer("sim-truncate");
    expect(events.length).toBeGreaterThan(5);
    expect([finishOf(events), isDone(events.at(-1)), ended]).toEqual([undefined, false, "complete"]);
  });

  test("sim-no-done has a finish_reason and no [DONE]; sim-done-only the reverse", async () => {
    const noDone = await answer("sim-no-done");
    expect([finishOf(noDone.events), isDone(noDone.events.at(-1))]).toEqual(["stop", false]);
    const doneOnly = await answer("sim-done-only");
    expect([finishOf(doneOnly.events), isDone(doneOnly.events.at(-1))]).toEqual([undefined, true]);
  });

  test("sim-insufficient finishes with insufficient_system_resource", async () => {
    expect(finishOf((await answer("sim-insufficient")).events)).toBe("insufficient_system_resource");
  });

  test("sim-stall goes on with comments after its events, sim-stall-first has nothing else", async () => {
    const stalled = await chat("sim-stall:2");
    const events = [];
    for (let count = 0; count < 6; count++) events.push(await stalled.nextEvent());
    expect(events.map((event) => event?.comment)).toEqual([undefined, undefined, ...Array(4).fill("keep-alive")]);
    stalled.leave();

    const silent = await chat("sim-stall-first");
    for (let count = 0; count < 4; count++) expect((await silent.nextEvent())?.comment).toBe("keep-alive");
    silent.leave();
  });

  test("sim-queue has comments, then the whole answer", async () => {
    const { events } = await answer("sim-queue:40");
    expect(events[0]?.comment).toBe("keep-alive");
    expect(finishOf(events)).toBe("stop");
  });
});

describe("events that are bent", () => {
  test("sim-error-first and sim-error-event carry DeepSeek's error object", async () => {
    const first = await answer("sim-error-first");
    expect(first.events.map((event) => event.json?.error?.code)).toEqual(["overloaded"]);
    const later = await answer("sim-error-event:2");
    expect(later.events.map((event) => event.json?.error?.code)).toEqual([undefined, undefined, "overloaded"]);
  });

  test("sim-bad-json has one event that does not parse, and goes on to the end", async () => {
    const { events } = await answer("sim-bad-json:2");
    expect(events.filter((event) => event.json === undefined && !isDone(event))).toHaveLength(1);
    expect(isDone(events.at(-1))).toBe(true);
  });

  test("sim-crlf, sim-nospace and sim-bytes say the same in other framing", async () => {
    const texts = new Map<string, string>();
    for (const model of ["sim-crlf", "sim-nospace", "sim-bytes"]) {
      const { stream, events } = await answer(model);
      texts.set(model, stream.text);
      expect(events.map((event) => event.json?.choices[0].delta.content ?? "").join("")).toMatch(
        /simulator|One chunk after/,
      );
      expect(isDone(events.at(-1))).toBe(true);
    }
    expect(texts.get("sim-crlf")?.replaceAll("\r\n", "")).not.toContain("\n");
    expect(texts.get("sim-crlf")).toContain("\r\n\r\n");
    expect(texts.get("sim-nospace")).not.toContain("data: ");
  });

  test("sim-huge-event is one event of the size asked for", async () => {
    const { events } = await answer("sim-huge-event");
    expect(Math.max(...events.map((event) => event.raw.length))).toBeGreaterThan(1 << 20);
    expect(events).toHaveLength(4);
  });

  test("sim-tools calls get_weather by itself, sim-big-tools with 64 KiB of arguments", async () => {
    const small = await answer("sim-tools");
    expect(small.stream.text).toContain('"name":"get_weather"');
    const big = await answer("sim-big-tools");
    const fragments = big.events.map((event) => event.json?.choices[0].delta.tool_calls?.[0].function.arguments ?? "");
    expect(JSON.parse(fragments.join("")).text).toHaveLength(65_536);
    expect(finishOf(big.events)).toBe("tool_calls");
  });

  test("sim-burst is 100 data events and [DONE], the same every time", async () => {
    const { events } = await answer("sim-burst");
    expect(events).toHaveLength(101);
    expect((await answer("sim-burst")).events).toEqual(events);
  });

  test("sim-slow and sim-long take their size from the name", async () => {
    expect((await answer("sim-long:123")).events).toHaveLength(126);
    expect((await answer("sim-slow:200", { max_tokens: 2 })).events).toHaveLength(5);
  });
});

describe("usage", () => {
  test("sim-usage-after sends it in a chunk of its own, and only where it was asked for", async () => {
    const asked = await answer("sim-usage-after", { stream_options: { include_usage: true } });
    expect(asked.events.at(-2)?.json).toMatchObject({ choices: [], usage: { prompt_tokens: 250 } });
    expect(asked.events.at(-3)?.json?.choices[0].finish_reason).toBe("stop");
    const notAsked = await answer("sim-usage-after");
    expect(notAsked.stream.text).not.toContain('"usage"');
  });

  test("sim-no-usage leaves null, sim-zero-usage says 0", async () => {
    expect((await answer("sim-no-usage")).usages.at(-2)).toBeNull();
    expect((await answer("sim-zero-usage")).usages.at(-2)).toMatchObject({ prompt_tokens: 0, total_tokens: 0 });
  });

  test("sim-cumulative counts up chunk by chunk and ends at the total", async () => {
    const { usages } = await answer("sim-cumulative", { max_tokens: 4 });
    expect(usages.slice(0, -1).map((usage) => usage?.completion_tokens)).toEqual([0, 1, 2, 3, 4, 4]);
  });

  test("sim-cached splits the prompt into hits of whole blocks and misses", async () => {
    expect((await answer("sim-cached")).usages.at(-2)).toMatchObject({
      prompt_tokens: 250,
      prompt_cache_hit_tokens: 64,
      prompt_cache_miss_tokens: 186,
    });
  });

  test("sim-zhipu leaves finish_reason out until the chunk that carries usage", async () => {
    const { events } = await answer("sim-zhipu");
    const chunks = events.slice(0, -1).flatMap((event) => event.json ?? []);
    expect(chunks.every((chunk) => chunk.choices[0].delta.role === "assistant")).toBe(true);
    expect(chunks.slice(0, -1).some((chunk) => "finish_reason" in chunk.choices[0] || "usage" in chunk)).toBe(false);
    expect(chunks.at(-1)).toMatchObject({ choices: [{ finish_reason: "stop" }], usage: { prompt_tokens: 250 } });
  });
});
