import { describe, expect, it, onTestFinished } from "vitest";
import { priced, startBilledProxy } from "../support/billed-proxy.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";

const chunk = (content: string, finish_reason: string | null, usage: object | null): string =>
  JSON.stringify({ choices: [{ index: 0, delta: { content }, finish_reason }], usage });
const usage = { prompt_tokens: 123, completion_tokens: 45, prompt_cache_hit_tokens: 23 };
const answer = [chunk("你好 🎉", null, null), chunk("", "stop", usage), "[DONE]"];
const cumulative = [
  chunk("a", null, { prompt_tokens: 123, completion_tokens: 1 }),
  chunk("b", "stop", { prompt_tokens: 123, completion_tokens: 2 }),
  JSON.stringify({ choices: [], usage }),
  "[DONE]",
];

const wires: [string, string][] = [
  ["with LF", answer.map((data) => `data: ${data}\n\n`).join("")],
  ["with CRLF", answer.map((data) => `data: ${data}\r\n\r\n`).join("")],
  ["without a space", answer.map((data) => `data:${data}\n\n`).join("")],
  ["with comments between", answer.map((data) => `: keep-alive\n\ndata: ${data}\n\n`).join("")],
  ["with usage on each chunk", cumulative.map((data) => `data: ${data}\n\n`).join("")],
];

describe.each([
  ["in one piece", 0],
  ["byte by byte", 1],
  ["in pieces of 7 bytes", 7],
])("an answer that comes %s is charged exactly", (_, sliceBytes) => {
  it.each(wires)("%s, streamed and collected", async (_name, wire) => {
    const billed = await startBilledProxy({
      config: "",
      through: async (url) => {
        const faults = await startFaultProxy(url);
        onTestFinished(() => faults.close());
        faults.down.sliceBytes = sliceBytes;
        return faults.url;
      },
    });
    for (const ask of [billed.open, billed.collect]) {
      const asking = ask();
      const call = await billed.upstream.next();
      await call.send(wire);
      call.end();
      const client = await asking;
      expect(client.status).toBe(200);
      if ("rest" in client) expect((await client.rest()).at(-1)?.data).toBe("[DONE]");
      else expect(await client.json()).toMatchObject({ usage: { prompt_tokens: 123 } });
    }
    expect(await billed.used()).toEqual(priced(123, 45, { cached: 23 }).map((amount) => 2 * amount));
  });
});
