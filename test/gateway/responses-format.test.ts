import { describe, expect, it } from "vitest";
import { AppError } from "../../src/errors.ts";
import { ResponseCollector, responses } from "../../src/gateway/formats/responses.ts";
import { unpricedExtra } from "../../src/gateway/unpriced-extras.ts";
import { parseJsonObject } from "../../src/lib/json-object.ts";
import { UpstreamError } from "../../src/providers/upstream-error.ts";
import {
  created,
  lastEvent,
  opened,
  outputDelta,
  responseEvent,
  responseText,
  wholeMessage,
  wholeResponse,
} from "../support/response-events.ts";

const jsonObject = (text: string) =>
  parseJsonObject(Buffer.from(text), { maxDepth: 100, maxKeys: 1000, maxNewKeys: 1000, maxValues: 1000 });
const minimal = { model: "m", input: "Hello" };
const parse = (body: object) => responses.parse(jsonObject(JSON.stringify(body)), false);
const features = {
  streamOptions: true,
  developerRole: true,
  maxCompletionTokens: true,
  keepsResponses: false,
  namesWithoutThinking: [],
};

describe("a request to the Responses API", () => {
  it.each([
    ["a text", minimal],
    [
      "messages without a type",
      { ...minimal, input: [{ role: "user", content: [{ type: "input_text", text: "Hi" }] }] },
    ],
    [
      "a replayed turn",
      {
        ...minimal,
        input: [
          { id: "rs_1", type: "reasoning", summary: [] },
          { id: "fc_1", type: "function_call" },
        ],
      },
    ],
    [
      "what Codex sends",
      { ...minimal, store: false, include: ["reasoning.encrypted_content"], prompt_cache_key: "k", stream: true },
    ],
    [
      "null for what is not kept",
      { ...minimal, store: null, previous_response_id: null, background: false, conversation: null },
    ],
  ])("may be %s", (_, body) => {
    expect(parse(body)).toMatchObject({ api: "responses", model: "m", maxTokens: null, choices: 1 });
  });

  it.each([
    ["model", { input: "Hello" }],
    ["input", { model: "m" }],
    ["input", { model: "m", input: [] }],
    ["input", { model: "m", input: { role: "user" } }],
    ["input.1", { model: "m", input: [{ role: "user" }, "Hello"] }],
    ["max_output_tokens", { ...minimal, max_output_tokens: 0 }],
    ["stream", { ...minimal, stream: "true" }],
    ["Stream", { ...minimal, Stream: true }],
    ["STORE", { ...minimal, STORE: true }],
    ["previous_response_id", { ...minimal, previous_response_id: "resp_1" }],
    ["conversation", { ...minimal, conversation: { id: "conv_1" } }],
    ["store", { ...minimal, store: true }],
    ["store", { ...minimal, store: "true" }],
    ["background", { ...minimal, background: true }],
    ["prompt", { ...minimal, prompt: { id: "pmpt_1" } }],
    ["input.0", { model: "m", input: [{ type: "item_reference", id: "rs_1" }] }],
    ["input.0", { model: "m", input: [{ id: "rs_1" }] }],
    ["input.0", { model: "m", input: [{ type: null, id: "rs_1", content: "x" }] }],
  ])("is refused by the name of its field: %s", (param, body) => {
    let error: unknown;
    try {
      parse(body);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toMatchObject({ code: "invalid_request", extras: { param } });
  });

  it("is passed on as it came, but streamed, and kept nowhere", () => {
    const body = '{ "model":"m" , "input":"Hello","temperature":1.50}';
    const request = responses.parse(jsonObject(body), false);
    expect(request.bodyFor("m", features).toString()).toBe(
      '{ "model":"m" , "input":"Hello","temperature":1.50,"stream":true}',
    );
    expect(JSON.parse(request.bodyFor("own", { ...features, keepsResponses: true }).toString())).toEqual({
      ...minimal,
      model: "own",
      temperature: 1.5,
      stream: true,
      store: false,
    });
    const codex = Buffer.from(JSON.stringify({ ...minimal, stream: true, store: false }));
    expect(
      responses.parse(jsonObject(codex.toString()), false).bodyFor("m", { ...features, keepsResponses: true }),
    ).toEqual(codex);
  });

  it.each([
    ["a function", { type: "function", name: "f", parameters: {} }, true],
    ["a custom tool", { type: "custom", name: "apply_patch" }, true],
    ["a namespace of functions", { type: "namespace", name: "n", tools: [{ type: "function", name: "f" }] }, true],
    ["a search", { type: "web_search" }, false],
    ["a search in a namespace", { type: "namespace", name: "n", tools: [{ type: "web_search" }] }, false],
    ["an empty namespace", { type: "namespace", name: "n" }, false],
    ["a function that Moonshot runs", { type: "function", name: "$web_search" }, false],
  ])("costs no more than its tokens with %s, wherever it is: %j is %s", (_, tool, isFree) => {
    expect(unpricedExtra({ ...minimal, tools: [tool] })).toBe(isFree ? null : "tools");
    const input = [{ role: "user" }, { type: "additional_tools", role: "developer", tools: [tool] }];
    expect(unpricedExtra({ ...minimal, input })).toBe(isFree ? null : "input");
  });
});

describe("what the proxy says in a stream of the Responses API", () => {
  const at = Date.UTC(2026, 10, 26);
  const failure = new AppError("upstream_error", {
    cause: new UpstreamError({ kind: "network", stage: "first_byte" }),
  });
  const jsonOf = (
    sse: string,
  ): readonly { type: string; sequence_number: number; response: Record<string, unknown> }[] =>
    sse
      .trim()
      .split("\n\n")
      .map((block) => JSON.parse(block.slice(block.indexOf("data: ") + 6)));
  const first = { response: { id: "resp_1", object: "response", created_at: 1, model: "flash", instructions: "long" } };

  it("is a comment before the first event, and response.in_progress with its id after it", () => {
    const stream = responses.startStream("m", at);
    expect([stream.heartbeat(false), stream.heartbeat(true)].map(String)).toEqual([
      ": keep-alive\n\n",
      ": keep-alive\n",
    ]);
    stream.onEvent?.(first);
    stream.onWrite?.(Buffer.from(created));
    stream.onWrite?.(Buffer.from(outputDelta("a", 11) + outputDelta('\\"sequence_number\\":99', 12)));
    expect(jsonOf(String(stream.heartbeat(true)))).toEqual([
      {
        type: "response.in_progress",
        sequence_number: 12,
        response: expect.objectContaining({
          id: "resp_1",
          created_at: 1,
          model: "flash",
          status: "in_progress",
          output: [],
        }),
      },
    ]);
    expect(String(stream.heartbeat(false))).not.toContain("instructions");
  });

  it("names the response that failed, and counts on", () => {
    const stream = responses.startStream("m", at);
    stream.onEvent?.(first);
    stream.onWrite?.(Buffer.from(outputDelta("a", 41)));
    const [failed] = jsonOf(stream.errorEvent(new AppError("upstream_truncated"), "trace-1"));
    expect(failed).toMatchObject({
      type: "response.failed",
      sequence_number: 42,
      response: {
        id: "resp_1",
        status: "failed",
        error: { code: "upstream_truncated", proxy_code: "upstream_truncated", trace_id: "trace-1" },
      },
    });
  });

  it("opens a response only to say that it failed, with a code that Codex takes for final", () => {
    const [opening, failed] = jsonOf(responses.startStream("m", at).errorEvent(failure, "trace-1"));
    expect(opening).toMatchObject({
      type: "response.created",
      sequence_number: 0,
      response: { id: "resp_trace-1", created_at: at / 1000, model: "m", output: [] },
    });
    expect(failed).toMatchObject({
      type: "response.failed",
      response: { id: "resp_trace-1", error: { code: "server_is_overloaded", proxy_code: "upstream_error" } },
    });
  });

  it.each([
    ["quota_exceeded_midstream", {}, "insufficient_quota"],
    ["upstream_rejected", { shownCode: "context_length_exceeded" }, "context_length_exceeded"],
    ["shutting_down", {}, "shutting_down"],
  ] as const)("has for %s %j the code %s", (code, extras, shown) => {
    const stream = responses.startStream("m", at);
    stream.onEvent?.(first);
    const [failed] = jsonOf(stream.errorEvent(new AppError(code, extras), "trace-1"));
    expect(failed?.response.error).toMatchObject({ code: shown, proxy_code: code });
  });

  it("is a 429 for a quota, which Codex doesn't ask for again, and a stream for what no provider could serve", () => {
    const details = { used: 1, reset_at: new Date(at + 90_000).toISOString() };
    const quota = responses.adaptError?.(new AppError("quota_exceeded", { details }));
    expect(quota).toMatchObject({
      code: "quota_exceeded",
      status: 429,
      type: "insufficient_quota",
      extras: { shouldRetry: false, retryAfterSeconds: null, details },
    });
    const other = new AppError("rate_limited");
    expect(responses.adaptError?.(other)).toBe(other);
    expect(responses.failsAsStream?.(failure)).toBe(true);
    for (const code of ["rate_limited", "shutting_down", "internal_error"] as const) {
      expect(responses.failsAsStream?.(new AppError(code))).toBe(false);
    }
  });
});

describe("ResponseCollector", () => {
  const collected = (events: readonly string[]): ResponseCollector => {
    const collector = new ResponseCollector();
    for (const event of events) collector.add(JSON.parse(event.slice(event.indexOf("data: ") + 6)));
    return collector;
  };

  it("gives the response of the last event", () => {
    expect(JSON.parse(collected([created, ...responseText, lastEvent()]).body())).toEqual(wholeResponse());
  });

  it("fills in the output where the last event has none", () => {
    expect(JSON.parse(collected([created, ...responseText, lastEvent("completed", { output: [] })]).body())).toEqual(
      wholeResponse(),
    );
    expect(JSON.parse(collected([created, lastEvent("completed", { output: [] })]).body())).toEqual(
      wholeResponse({ output: [] }),
    );
  });

  it("needs no item for a delta that the last event repeats, and loses no text otherwise", () => {
    const stray = [created, outputDelta("Hel"), outputDelta("lo")];
    expect(JSON.parse(collected([...stray, lastEvent()]).body())).toEqual(wholeResponse());
    const cut = collected([...stray, lastEvent("completed", { output: [] })]);
    expect(() => cut.body()).toThrow("has not begun");
  });

  it("shows what had arrived of each item", () => {
    const item = { type: "function_call", name: "f", arguments: "" };
    const partial = JSON.parse(
      collected([
        created,
        ...opened,
        outputDelta("Hel"),
        outputDelta("lo"),
        responseEvent("output_item.added", { output_index: 1, item }),
        responseEvent("function_call_arguments.delta", { output_index: 1, delta: '{"a' }),
      ]).partial(),
    );
    expect(partial).toMatchObject({
      id: "resp_1",
      status: "incomplete",
      output: [
        { ...wholeMessage, status: "in_progress", content: [{ type: "output_text", text: "Hello" }] },
        { ...item, arguments: '{"a' },
      ],
    });
  });

  it.each([[null], [[]], ["text"]])("takes no %j for an event", (event) => {
    expect(() => {
      new ResponseCollector().add(event);
    }).toThrow("not an object");
  });
});
