import { createHash } from "node:crypto";
import { beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";
import { openStream } from "../support/sse-client.ts";
import { bearer, startProxy, type RunningProxy } from "../support/start-proxy.ts";

const chunk = (delta: object, finish_reason: string | null = null, usage: object | null = null): string =>
  `data: ${JSON.stringify({ id: "c", object: "chat.completion.chunk", created: 1, model: "m", choices: [{ index: 0, delta, logprobs: null, finish_reason }], usage })}\n\n`;
const words = ["a ", "é", "你好", "🎉", "👩‍👩‍👧", '"quoted" \\ \n', "data: [DONE]"];
const argument = JSON.stringify({ text: "0123456789 你好 🎉 ".repeat(3000).slice(0, 64 << 10) });
const large = "x你🎉".repeat((1 << 20) / 8);

/** 10,000 events of text, tool arguments of 64 KB in one event and in many, and two events of 1 MB among them. */
const events = [
  chunk({ role: "assistant", content: "" }),
  ...Array.from({ length: 10_000 }, (_, at) => chunk({ content: words[at % words.length] ?? "" })),
  chunk({ tool_calls: [{ index: 0, id: "t", type: "function", function: { name: "f", arguments: argument } }] }),
  chunk({ content: large }),
  chunk({ tool_calls: [{ index: 1, id: "u", type: "function", function: { name: "g", arguments: "" } }] }),
  ...(argument.match(/[^]{1,7}/g) ?? []).map((part) =>
    chunk({ tool_calls: [{ index: 1, function: { arguments: part } }] }),
  ),
  chunk({ content: large }),
  chunk({}, "stop", { prompt_tokens: 1, completion_tokens: 2 }),
  "data: [DONE]\n\n",
];
const bytes = Buffer.from(events.join(""));

/** Cuts at lengths that are prime and change, so that each kind of byte is cut at sooner or later. */
function* slices(primes: readonly number[]): Generator<Buffer> {
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const size = primes[turn % primes.length] ?? 1;
    yield bytes.subarray(at, at + size);
    at += size;
  }
}

describe("a stream of 10,000 events, tool arguments of 64 KB and single events of 1 MB", () => {
  let upstream: ScriptedUpstream;
  let proxy: RunningProxy;

  beforeEach(async () => {
    upstream = await startScriptedUpstream();
    onTestFinished(() => upstream.close());
    proxy = await startProxy({ upstreamUrl: upstream.url });
    onTestFinished(() => proxy.dispose());
  });

  async function ask(stream: boolean, primes: readonly number[]) {
    const body = { model: "m", stream, max_tokens: 1_000_000, messages: [{ role: "user", content: "hi" }] };
    const headers = bearer(await proxy.login());
    const asking = openStream(`${proxy.url}/chat/completions`, { headers, body });
    const call = await upstream.next();
    for (const slice of slices(primes)) await call.send(slice);
    call.end();
    const client = await asking;
    expect(await client.ended).toBe("complete");
    return client.text;
  }

  it.each([
    ["in small pieces", [997, 1009, 31, 1, 2, 3, 1013]],
    ["in pieces of many events", [65_521, 16_381, 1]],
  ])("is handed on byte for byte, cut anywhere: %s", async (_, primes) => {
    const hash = (data: string | Buffer) => createHash("sha256").update(data).digest("hex");
    const text = await ask(true, primes);
    expect(text).toHaveLength(bytes.toString().length);
    expect(hash(text)).toBe(hash(bytes));
  });

  it("is collected without the loss of a letter", async () => {
    const { choices } = JSON.parse(await ask(false, [8191, 4093, 1])) as {
      choices: [{ message: { content: string; tool_calls: { function: { arguments: string } }[] } }];
    };
    const { content, tool_calls: calls } = choices[0].message;
    const texts = Array.from({ length: 10_000 }, (_, at) => words[at % words.length]).join("");
    expect(content === texts + large + large).toBe(true);
    expect(calls.map((call) => call.function.arguments === argument)).toEqual([true, true]);
  });
});
