import { describe, expect, it } from "vitest";
import { chatCompletions } from "../../src/gateway/formats/chat-completions.ts";
import { parseJsonObject } from "../../src/lib/json-object.ts";
import { deepseek } from "../../src/providers/kinds/deepseek.ts";
import { openai } from "../../src/providers/kinds/openai.ts";

const limits = { maxDepth: 100, maxKeys: 1000, maxNewKeys: 1000, maxValues: 1000 };
const messages = [{ role: "user", content: "Hello" }];

function thinkingOf(fields: object, kind = deepseek, upstreamModel = "deepseek-flash"): unknown {
  const body = parseJsonObject(Buffer.from(JSON.stringify({ messages, ...fields })), limits);
  const sent = chatCompletions.parse(body, true).bodyFor(upstreamModel, kind.features).toString();
  return (JSON.parse(sent) as { readonly thinking?: unknown }).thinking;
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
