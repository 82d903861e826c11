import { describe, expect, it } from "vitest";
import { chatCompletions } from "../../src/gateway/formats/chat-completions.ts";
import { parseJsonObject } from "../../src/lib/json-object.ts";
import { deepseek } from "../../src/providers/kinds/deepseek.ts";
import { openai } from "../../src/providers/kinds/openai.ts";
import { zhipu } from "../../src/providers/kinds/zhipu.ts";

const limits = { maxDepth: 100, maxKeys: 1000, maxNewKeys: 1000, maxValues: 1000 };
const messages = [{ role: "user", content: "Hello" }];

interface Sent {
  readonly messages: unknown;
  readonly thinking?: unknown;
  readonly max_tokens?: unknown;
  readonly max_completion_tokens?: unknown;
}

function sentOf(fields: object, kind = deepseek, upstreamModel = "deepseek-flash", asWhole = false): Sent {
  const body = parseJsonObject(Buffer.from(JSON.stringify({ messages, ...fields })), limits);
  const sent = chatCompletions.parse(body, true).bodyFor(upstreamModel, kind.features, asWhole).toString();
  return JSON.parse(sent) as Sent;
}

function thinkingOf(...request: Parameters<typeof sentOf>): unknown {
  return sentOf(...request).thinking;
}

describe("a chat by a name that DeepSeek has replaced", () => {
  it("keeps to what the name meant: no thinking", () => {
    expect(thinkingOf({ model: "deepseek-chat" })).toEqual({ type: "disabled" });
  });

  it("thinks if the request says so", () => {
    expect(thinkingOf({ model: "deepseek-chat", thinking: { type: "enabled" } })).toEqual({ type: "enabled" });
    expect(thinkingOf({ model: "deepseek-chat", reasoning_effort: "low" })).toBeUndefined();
  });

  it("is as it came for other names, other kinds, and providers that still have the name", () => {
    expect(thinkingOf({ model: "deepseek-reasoner" })).toBeUndefined();
    expect(thinkingOf({ model: "deepseek-chat" }, openai)).toBeUndefined();
    expect(thinkingOf({ model: "deepseek-chat" }, deepseek, "deepseek-chat")).toBeUndefined();
  });
});

describe("the limit of a chat's output under its newer name", () => {
  const limitsOf = (...request: Parameters<typeof sentOf>): unknown[] => {
    const sent = sentOf(...request);
    return [sent.max_tokens, sent.max_completion_tokens];
  };

  it.each([
    ["DeepSeek", deepseek],
    ["Zhipu", zhipu],
  ])("has the name that %s knows, as it would ignore the newer one", (_, kind) => {
    const newer = { model: "m", max_completion_tokens: 60 };
    expect(limitsOf(newer, kind)).toEqual([60, undefined]);
    expect(limitsOf(newer, kind, "m")).toEqual([60, undefined]);
    expect(limitsOf(newer, kind, "m", true)).toEqual([60, undefined]);
    expect(limitsOf({ ...newer, max_tokens: null }, kind)).toEqual([60, undefined]);
    const developer = [{ role: "developer", content: "Be brief." }];
    expect(sentOf({ ...newer, messages: developer }, kind)).toMatchObject({
      messages: [{ role: "system", content: "Be brief." }],
      max_tokens: 60,
    });
  });

  it("is as it came where both names are there, where neither has a limit, and for OpenAI", () => {
    expect(limitsOf({ model: "m", max_tokens: 5, max_completion_tokens: 60 })).toEqual([5, 60]);
    expect(limitsOf({ model: "m", max_completion_tokens: null })).toEqual([undefined, null]);
    expect(limitsOf({ model: "m" })).toEqual([undefined, undefined]);
    expect(limitsOf({ model: "m", max_completion_tokens: 60 }, openai)).toEqual([undefined, 60]);
  });
});
