import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { errorTable, type ErrorCode } from "../../src/errors.ts";
import { quirks } from "../../src/simulator/quirks.ts";
import { createSimulator, type Simulator } from "../../src/simulator/server.ts";
import { nothing, priced } from "../support/billed-proxy.ts";
import { eventually } from "../support/eventually.ts";
import { quotaOf } from "../support/quota.ts";
import { openStream, type SseEvent } from "../support/sse-client.ts";
import { bearer, startProxy, upstreamKey, type RunningProxy } from "../support/start-proxy.ts";

/** What becomes of a provider's way of answering. */
interface Row {
  readonly api?: "chat" | "messages" | "embeddings";
  readonly kind?: "openai" | "deepseek" | "zhipu";
  /** The text that a stream shows; default "Hello there.". */
  readonly text?: string;
  /** The error in place of the rest, where the answer breaks off, or of all, where there is no answer: the proxy's. */
  readonly code?: ErrorCode;
  /** The provider's own code, where it has one and the error is the client's. */
  readonly shown?: string;
  /** The error's status, where it isn't the one of its code. */
  readonly status?: number;
  /** Whether the provider's key is known to work beforehand. */
  readonly keyWorks?: true;
  /** Words of the error that the client must read. */
  readonly words?: string;
  /** What the one JSON has in its message, or Anthropic's message; default the text. */
  readonly message?: object;
  /** What the stream, or the JSON, must not have in it. */
  readonly hides?: RegExp;
  /** [requests, tokens, nano-yuan]; default 10 tokens in, 4 out, and nothing for an error. */
  readonly billed?: readonly number[];
  /** How often the provider is asked for the stream, and then for the JSON; default once. */
  readonly asked?: readonly [number, number];
}

const thinkingPart = { type: "thinking", thinking: [{ type: "text", text: "Greet them." }] };
const tool = (name: string, rest: object = {}) => ({ ...rest, type: "function", function: { name, arguments: "{}" } });
const clients = { billed: nothing, text: "" };

/** Every quirk of the simulator. */
const rows: Readonly<Record<string, Row>> = {
  "sim-mistral-parts": {
    text: "there.",
    message: { content: [thinkingPart, { type: "text", text: "Hello there." }] },
  },
  "sim-mistral-options": { asked: [2, 1] },
  "sim-empty-finish": {},
  "sim-empty-finish-cut": { code: "upstream_truncated" },
  "sim-ollama-tools": {
    text: "",
    message: { tool_calls: [tool("a", { id: "call_a" }), tool("b", { id: "call_b" })] },
  },
  "sim-ollama-error": { ...clients, code: "upstream_rejected", words: "invalid options: temperature" },
  "sim-gemini-tools": { text: "", message: { tool_calls: [tool("a"), tool("b")] } },
  "sim-vllm-empty-tools": {},
  "sim-moonshot-usage": {},
  "sim-xai-reasoning": { billed: priced(10, 84, { reasoning: 80 }) },
  "sim-voyage": { api: "embeddings", billed: priced(21, 0) },
  "sim-openrouter-error": { text: "Hello ", code: "upstream_error" },
  "sim-openrouter-refusal": { ...clients, code: "upstream_rejected", shown: "400", words: "too many images" },
  "sim-openrouter-moderation": {
    ...clients,
    code: "upstream_forbidden",
    shown: "403",
    keyWorks: true,
    words: "input was flagged",
  },
  "sim-openrouter-reasoning": {
    message: {
      content: "Hello there.",
      reasoning_details: [
        { type: "reasoning.text", text: "Greet them.", signature: "c2ln", format: "anthropic-claude-v1", index: 0 },
      ],
    },
  },
  "sim-groq-tool": {
    ...clients,
    code: "upstream_rejected",
    shown: "tool_use_failed",
    words: "Failed to call a function",
  },
  "sim-groq-tool-late": {
    text: "Hello ",
    code: "upstream_rejected",
    shown: "tool_use_failed",
    words: "Failed to call a function",
  },
  "sim-fastapi-list": { ...clients, code: "upstream_rejected", status: 422, words: "too large" },
  "sim-fastapi-text": { ...clients, code: "upstream_rejected", words: "prompt of 70k tokens" },
  "sim-empty-data": {},
  "sim-comments": {},
  "sim-whole-json": {},
  "sim-whole-message": { api: "messages" },
  "sim-ids": {},
  "sim-loud-type": {},
  "sim-text-type": {},
  "sim-binary-type": {},
  "sim-gzip": {},
  "sim-done-space": {},
  "sim-bye": { hides: /: bye/ },
  "sim-finish-stall": {},
  "sim-finish-reset": {},
  "sim-finish-open": {},
  "sim-html-200": { text: "", code: "upstream_invalid_response", hides: /Log in/ },
  "sim-no-route": { text: "", code: "upstream_error" },
  "sim-azure-filter": {},
  "sim-padding": {},
  "sim-zhipu-sensitive": { kind: "zhipu" },
  "sim-zhipu-window": { kind: "zhipu" },
  "sim-zhipu-network": { kind: "zhipu", text: "Hello ", code: "upstream_overloaded" },
  "sim-no-quota": { text: "", code: "upstream_unavailable" },
  "sim-message-edits": { api: "messages", message: { context_management: { applied_edits: [] } } },
  "sim-message-no-stop": { api: "messages" },
  "sim-message-done": { api: "messages" },
};

/** Scenarios that answer honestly, in one provider's framing or another's. */
const honest: Readonly<Record<string, Row>> = {
  "deepseek-flash": { kind: "deepseek" },
  "sim-crlf": {},
  "sim-nospace": {},
  "sim-bytes": {},
  "sim-usage-after": {},
  "sim-zhipu": { kind: "zhipu" },
  "sim-cumulative": {},
  "sim-cached": { kind: "deepseek" },
  "sim-no-done": {},
  "sim-queue:30": { kind: "deepseek" },
};

/** Scenarios that refuse, with the error that the client gets and how often they are asked. */
const refusing: Readonly<Record<string, Row & { readonly code: ErrorCode; readonly times: number }>> = {
  "sim-401": { kind: "deepseek", code: "upstream_unavailable", times: 1 },
  "sim-402": { kind: "deepseek", code: "upstream_unavailable", times: 1 },
  "sim-422": {
    kind: "deepseek",
    code: "upstream_rejected",
    shown: "invalid_request_error",
    status: 422,
    words: "Invalid Parameters",
    times: 1,
  },
  "sim-503": { kind: "deepseek", code: "upstream_overloaded", times: 3 },
  "sim-html": { code: "upstream_error", hides: /nginx/, times: 3 },
  "sim-empty": { code: "upstream_truncated", times: 3 },
  "sim-zhipu-error:1002": { kind: "zhipu", code: "upstream_unavailable", times: 1 },
  "sim-zhipu-error:1113": { kind: "zhipu", code: "upstream_unavailable", times: 1 },
  "sim-zhipu-error:1211": { kind: "zhipu", code: "model_not_found", times: 1 },
  "sim-zhipu-error:1261": { kind: "zhipu", code: "upstream_rejected", shown: "1261", words: "Prompt", times: 1 },
  "sim-zhipu-error:1301": { kind: "zhipu", code: "content_refused", shown: "1301", words: "系统检测到", times: 1 },
  "sim-zhipu-error:1302": { kind: "zhipu", code: "upstream_rate_limited", times: 3 },
  "sim-zhipu-error:1305": { kind: "zhipu", code: "upstream_overloaded", times: 3 },
};

const paths = { chat: "/v1/chat/completions", messages: "/anthropic/v1/messages", embeddings: "/v1/embeddings" };

let simulator: Simulator;
let proxy: RunningProxy;
let token: string;

beforeAll(async () => {
  simulator = await createSimulator({ keepAliveMs: 5 });
  // Each on its own, so that none uses up another's retries.
  const providers = Object.entries({ ...rows, ...honest, ...refusing }).map(
    ([model, row], index) => `[[providers]]
name = "p${index}"
kind = "${row.kind ?? (row.api === "messages" ? "deepseek" : "openai")}"
base_url = "${simulator.url}"
api_key_env = "DEEPSEEK_API_KEY"
models = ["${model}"]
model_map = { "works ${model}" = "sim-fast" }`,
  );
  proxy = await startProxy({
    env: { DEEPSEEK_API_KEY: upstreamKey },
    config: `
[models]
weights = { "sim-*" = 2 }
[[models.prices]]
models = ["*"]
currency = "CNY"
cache_hit = 0.5
cache_miss = 1
output = 4
reasoning = 8
[quota.tiers.basic]
limits = [
  { metric = "requests", per = "total", max = 1000 },
  { metric = "tokens", per = "total", max = 1000000000 },
  { metric = "cost", per = "total", max = 1000 },
]
[retry]
base_ms = 1
[concurrency]
max_parallel = 10
[timeouts]
idle_seconds = 3
[breaker]
failures = 100
[health]
probe_seconds = 0
${providers.join("\n")}`,
  });
  token = await proxy.login();
});

afterAll(async () => {
  await proxy.dispose();
  await simulator.close();
});

describe("providers' quirks", () => {
  it("each have a row here", () => {
    expect(Object.keys(rows).sort()).toEqual([...quirks.keys()].sort());
  });

  it.each(Object.entries(rows).filter(([, { api }]) => api !== "embeddings"))("%s, streamed", async (model, row) => {
    if (row.keyWorks === true) expect((await post(`works ${model}`, {}, false)).status).toBe(200);
    const { result, billed, asked } = await measured(() => readStream(model, row));
    const { text = "Hello there.", code, words = "", hides } = row;
    expect(result.text).toBe(text);
    expect(result.end).toBe(row.shown ?? code ?? "complete");
    expect(result.raw).toContain(words);
    if (hides !== undefined) expect(result.raw).not.toMatch(hides);
    // Before anything was shown, an error has its status.
    expect(result.status).toBe(code === undefined || text !== "" ? 200 : statusOf(row));
    expect(billed).toEqual(billOf(row));
    expect(asked).toBe(row.asked?.[0] ?? 1);
  });

  it.each(Object.entries(rows))("%s, as one JSON", async (model, row) => {
    const { result, billed, asked } = await measured(() => post(model, row, false));
    const body = JSON.parse(result.text) as { readonly error?: { readonly code: string; readonly message: string } };
    const { code, words = "", hides = /obfuscation|abcdefgh/ } = row;
    expect(body.error?.code).toBe(row.shown ?? code);
    expect(body.error?.message ?? "").toContain(words);
    expect(result.text).not.toMatch(hides);
    expect(result.status).toBe(statusOf(row));
    if (code === undefined && row.api !== "embeddings") expect(messageIn(body, row)).toMatchObject(messageOf(row));
    expect(billed).toEqual(billOf(row));
    expect(asked).toBe(row.asked?.[1] ?? 1);
  });
});

describe("a provider's framing", () => {
  it.each(Object.entries(honest))("%s says the same streamed and as one JSON, at one price", async (model, row) => {
    const streamed = await measured(() => readStream(model, row));
    const collected = await measured(() => post(model, row, false));
    const body = JSON.parse(collected.result.text) as Completion;
    expect(streamed.result.end).toBe("complete");
    expect(streamed.result.text).toMatch(/simulator|One chunk/);
    expect(body.choices[0]?.message.content).toBe(streamed.result.text);
    expect(body.usage.total_tokens).toBe(streamed.billed[1]);
    expect(collected.billed).toEqual(streamed.billed);
    expect([streamed.asked, collected.asked]).toEqual([1, 1]);
  });
});

describe("a provider's refusal", () => {
  it.each(Object.entries(refusing))("%s is told in the proxy's words, or the provider's", async (model, row) => {
    for (const stream of [true, false]) {
      const { result, billed, asked } = await measured(() => post(model, row, stream));
      const { code, words = "", hides = /governor|Insufficient/ } = row;
      expect(result.status).toBe(statusOf(row));
      expect(JSON.parse(result.text)).toMatchObject({ error: { code: row.shown ?? code } });
      expect(result.text).toContain(words);
      expect(result.text).not.toMatch(hides);
      expect(billed).toEqual(nothing);
      expect(asked).toBe(row.times);
    }
  });
});

interface Completion {
  readonly choices: readonly { readonly message: { readonly content: string } }[];
  readonly usage: { readonly total_tokens: number };
}

function statusOf({ status, code }: Row): number {
  return status ?? (code === undefined ? 200 : errorTable[code].status);
}

function billOf({ billed, code }: Row): readonly number[] {
  return billed ?? (code === undefined ? priced(10, 4) : nothing);
}

function messageOf({ message, text = "Hello there.", api }: Row): object {
  return message ?? (api === "messages" ? { content: [{ type: "text", text }] } : { content: text });
}

function messageIn(body: object, { api }: Row): unknown {
  if (api === "messages") return body;
  return (body as { readonly choices: readonly { readonly message: object }[] }).choices[0]?.message;
}

/** What a request costs, and how often the provider is asked for it. */
async function measured<T>(act: () => Promise<T>): Promise<{ result: T; billed: readonly number[]; asked: number }> {
  const before = await used();
  const { requests } = simulator.stats();
  const result = await act();
  const after = await used();
  return {
    result,
    billed: after.map((value, at) => value - (before[at] ?? 0)),
    asked: simulator.stats().requests - requests,
  };
}

async function used(): Promise<readonly number[]> {
  let amounts: readonly number[] = [];
  await eventually(async () => {
    const limits = await quotaOf(proxy, token);
    expect(limits.filter(({ reserved }) => reserved !== 0)).toEqual([]);
    amounts = limits.map(({ metric, used }) => Math.round(metric === "cost" ? used * 1e9 : used));
  });
  return amounts;
}

async function post(model: string, { api = "chat" }: Row, stream: boolean) {
  const body =
    api === "embeddings"
      ? { model, input: "Hello" }
      : { model, stream, max_tokens: 100, messages: [{ role: "user", content: "Hello" }] };
  const client = await openStream(`${proxy.url}${paths[api]}`, { headers: bearer(token), body });
  const events = await client.rest();
  await client.ended;
  return { status: client.status, text: client.text, events };
}

async function readStream(model: string, row: Row) {
  const { status, text: raw, events } = await post(model, row, true);
  const whole = status === 200 ? undefined : (JSON.parse(raw) as { readonly error: { readonly code: string } });
  return { status, raw, text: events.map(textOf).join(""), end: whole?.error.code ?? endOf(events.at(-1)) };
}

function textOf({ json }: SseEvent): string {
  const { choices, delta } = (json ?? {}) as { readonly choices?: readonly unknown[]; readonly delta?: unknown };
  const of = (choices?.[0] as { readonly delta?: unknown } | undefined)?.delta ?? delta;
  const { content, text } = (of ?? {}) as { readonly content?: unknown; readonly text?: unknown };
  const said = content ?? text;
  return typeof said === "string" ? said : "";
}

function endOf(last: SseEvent | undefined): unknown {
  if (last?.data === "[DONE]" || last?.event === "message_stop") return "complete";
  return last?.json?.error?.code;
}
