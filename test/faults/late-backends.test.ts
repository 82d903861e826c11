import { describe, expect, it } from "vitest";
import { delayedBackends, failingBackends, slowBackends } from "../support/backends.ts";
import { chatBody, nothing, priced, startBilledProxy } from "../support/billed-proxy.ts";
import { eventually } from "../support/eventually.ts";
import { bearer } from "../support/start-proxy.ts";
import type { SseEvent } from "../support/sse-client.ts";

const chunk = (content: string): string =>
  `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content } }] })}\n\n`;
const usage = { prompt_tokens: 10, completion_tokens: 600, total_tokens: 610 };
const held = Math.ceil(JSON.stringify(chatBody(true)).length / 2) + 10;
const numbers = Array.from({ length: 600 }, (_, index) => `${index} `);

function textOf(events: readonly SseEvent[]): string {
  const chunks = events.flatMap(({ json }) => (json !== undefined && "choices" in json ? [json] : []));
  return chunks.map(({ choices }) => choices[0].delta.content ?? "").join("");
}

describe("M11: with a ledger that answers 3 ms later", () => {
  it.each([
    ["one by one", 1],
    ["in a few reads", 100],
    ["all at once", 600],
  ])("no event passes beyond the limit: %s", async (_, atOnce) => {
    const room = 100;
    const billed = await startBilledProxy({ maxTokens: held + room, backends: delayedBackends });
    const opening = billed.open();
    const call = await billed.upstream.next();
    for (let sent = 0; sent < numbers.length; sent += atOnce) {
      const pieces = numbers.slice(sent, sent + atOnce).map(chunk);
      await Promise.race([call.send(pieces.join("")).catch(() => undefined), call.closed]);
    }
    const events = await (await opening).rest();
    expect(events.at(-1)?.json?.error).toMatchObject({ code: "quota_exceeded_midstream" });
    expect(textOf(events)).toBe(numbers.slice(0, 10 + room).join(""));
    await eventually(async () => {
      expect((await billed.used())[1]).toBeLessThanOrEqual(held + room);
    });
  });

  it.each([
    ["one by one", 1],
    ["all at once", 600],
  ])("an answer arrives whole and in order: %s", async (_, atOnce) => {
    const billed = await startBilledProxy({ backends: delayedBackends });
    const opening = billed.open();
    const call = await billed.upstream.next();
    for (let sent = 0; sent < numbers.length; sent += atOnce) {
      await call.send(
        numbers
          .slice(sent, sent + atOnce)
          .map(chunk)
          .join(""),
      );
    }
    await call.finish(usage);
    const events = await (await opening).rest();
    expect(textOf(events)).toBe(numbers.join(""));
    expect(events.at(-1)?.data).toBe("[DONE]");
    expect(await billed.used()).toEqual(priced(10, 600));
  });

  it("one JSON has all of it", async () => {
    const billed = await startBilledProxy({ backends: delayedBackends });
    const asking = billed.collect();
    const call = await billed.upstream.next();
    await call.send(numbers.map(chunk).join(""));
    await call.finish(usage);
    expect(await (await asking).json()).toMatchObject({ choices: [{ message: { content: numbers.join("") } }] });
    expect(await billed.used()).toEqual(priced(10, 600));
  });

  it("a client that leaves while the ledger is asked leaves nothing behind", async () => {
    let asked = (): void => undefined;
    const waits = new Promise<void>((resolve) => (asked = resolve));
    let answer = (): void => undefined;
    const answered = new Promise<void>((resolve) => (answer = resolve));
    const billed = await startBilledProxy({
      config: '[abort]\npolicy = "cancel"\n',
      backends: (own) =>
        slowBackends(own, async (call) => {
          if (call !== "grow") return;
          asked();
          await answered;
        }),
    });
    const opening = billed.open();
    const call = await billed.upstream.next();
    await call.send(numbers.map(chunk).join(""));
    const client = await opening;
    await waits;
    client.leave();
    expect(await billed.logged()).toMatchObject({ outcome: "client_gone", estimated: true });
    answer();
    await call.closed;
    await eventually(async () => {
      expect((await billed.used())[0]).toBe(2);
    });
  });
});

describe("M11: a backend that fails is storage_unavailable for this request, and nothing more", () => {
  it.each<string>(["take", "acquire", "reserve", "commit"])("at %s: 503", async (failing) => {
    const billed = await startBilledProxy({ backends: (own) => failingBackends(own, failing) });
    const asking = billed.collect();
    if (failing === "commit") await (await billed.upstream.next()).delta("one");
    const answer = await asking;
    expect(answer.status).toBe(503);
    expect(answer.headers.get("retry-after")).toBe("1");
    expect(await answer.json()).toMatchObject({ error: { code: "storage_unavailable" } });
    expect(await billed.used()).toEqual(nothing);
    expect(await billed.logged()).toMatchObject({ outcome: "refused", code: "storage_unavailable" });
    expect(billed.proxy.logLines.join("")).toContain("the connection is lost");
  });

  it.each([
    ["a stream", true],
    ["one JSON", false],
  ])("at grow, in the middle of %s", async (_, stream) => {
    const billed = await startBilledProxy({ backends: (own) => failingBackends(own, "grow") });
    const asking = billed.ask("/v1/chat/completions", chatBody(stream));
    const call = await billed.upstream.next();
    await call.send(numbers.map(chunk).join(""));
    const client = await asking;
    const events = await client.rest();
    await client.ended;
    expect(client.status).toBe(stream ? 200 : 503);
    expect(client.text).toContain('"code":"storage_unavailable"');
    if (stream) expect(textOf(events)).toBe(numbers.slice(0, 10).join(""));
    await call.closed;
    expect(await billed.used()).toEqual(nothing);
  });

  it("at settle: the answer is whole, and everything but the charge is given back", async () => {
    const billed = await startBilledProxy({ backends: (own) => failingBackends(own, "settle") });
    for (let round = 0; round < 2; round++) {
      const asking = billed.collect();
      const call = await billed.upstream.next();
      await call.delta("one");
      await call.finish();
      expect((await asking).status).toBe(200);
    }
    expect(billed.proxy.services.concurrency.inFlight()).toBe(0);
    expect(billed.proxy.logLines.join("")).toContain("a charge was not settled");
  });

  it.each([
    ["buckets", "/auth/quota"],
    ["usage", "/auth/usage"],
  ] as const)("at %s", async (failing, path) => {
    const billed = await startBilledProxy({ backends: (own) => failingBackends(own, failing) });
    const answer = await fetch(billed.proxy.url + path, { headers: bearer(await billed.proxy.login()) });
    expect(answer.status).toBe(503);
    expect(await answer.json()).toMatchObject({ error: { code: "storage_unavailable" } });
  });
});
