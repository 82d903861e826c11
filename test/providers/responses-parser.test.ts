import { describe, expect, it } from "vitest";
import { apis } from "../../src/providers/apis.ts";
import { JsonReader } from "../../src/providers/stream/json-reader.ts";
import { ResponsesParser, unfoldResponse } from "../../src/providers/stream/responses-parser.ts";
import { testProvider } from "../support/provider.ts";
import { event, readResponse } from "../support/read-response.ts";
import {
  created,
  lastEvent,
  outputDelta,
  responseEvent,
  responseText,
  responseUsage,
  wholeResponse,
} from "../support/response-events.ts";

const read = (...events: readonly string[]) => readResponse("responses", events);

describe("a stream of the Responses API", () => {
  it.each([
    ["its last event", [...responseText, lastEvent()], null],
    [
      "one that its length cut",
      [lastEvent("incomplete", { incomplete_details: { reason: "max_output_tokens" } })],
      null,
    ],
    ["one that a filter cut", [lastEvent("incomplete", { incomplete_details: { reason: "content_filter" } })], null],
    ["one without a reason", [lastEvent("incomplete", { incomplete_details: null })], null],
    ["one without a response", [event({ type: "response.completed" })], null],
    [
      "one of a provider that gave up",
      [lastEvent("incomplete", { incomplete_details: { reason: "insufficient_system_resource" } })],
      "overloaded",
    ],
    ["a failure", [lastEvent("failed", { error: { code: "server_error", message: "no" } })], "server_error"],
    ["a failure without words", [lastEvent("failed", { error: null })], "server_error"],
    [
      "a failure that is called complete",
      [responseEvent("completed", { response: { status: "failed", error: { code: "rate_limit_exceeded" } } })],
      "rate_limited",
    ],
    [
      "a failure that is the client's",
      [lastEvent("failed", { error: { code: "context_length_exceeded", message: "too long" } })],
      "bad_request",
    ],
    [
      "an error event",
      [`event: error\ndata: {"type":"error","code":"server_error","message":"no"}\n\n`],
      "server_error",
    ],
    [
      "an error event without a name",
      [event({ type: "error", code: "rate_limit_exceeded", message: "slow" })],
      "rate_limited",
    ],
    ["nothing after its text", [...responseText], "truncated"],
    ["[DONE] alone", ["data: [DONE]\n\n"], "truncated"],
  ])("ends with %s", (_, events, fault) => {
    const { fault: found } = read(created, ...events);
    expect(found).toBe(fault);
  });

  it("has no ping among its events, even after some that differ in several texts", () => {
    const long = "x".repeat(300);
    const events = ["output_text.done", "refusal.done", "reasoning_text.done", "output_text.done", "refusal.done"].map(
      (type, at) => responseEvent(type, { text: `${at}${long}` }),
    );
    const { seen } = read(created, ...events, event({ type: "ping" }), ...events, lastEvent());
    expect(seen).toEqual([created, ...events, ...events, lastEvent()]);
  });

  it("is passed on byte for byte, its last event included, and counted by its deltas", () => {
    const roles: string[] = [];
    const events = [created, ...responseText, lastEvent()];
    const { seen, usage, outputTokens } = readResponse("responses", [...events, "data: [DONE]\n\n"], {}, (role) =>
      roles.push(role),
    );
    expect(seen).toEqual(events);
    expect(roles).toEqual([...Array<string>(8).fill("part"), "last"]);
    expect(usage).toEqual(responseUsage);
    expect(outputTokens).toBe(2);
  });

  it.each([
    "output_text.delta",
    "reasoning_text.delta",
    "reasoning_summary_text.delta",
    "refusal.delta",
    "function_call_arguments.delta",
    "custom_tool_call_input.delta",
  ])("counts the text of %s", (type) => {
    expect(read(created, responseEvent(type, { delta: "x".repeat(40) })).outputTokens).toBe(7);
  });

  it.each([event({ type: "ping" }), event({ type: "keepalive" }), ": keep-alive\n\n", "data:\n\n"])(
    "doesn't pass on %j",
    (idle) => {
      expect(read(created, idle, outputDelta("a"), idle, lastEvent()).seen).toHaveLength(3);
    },
  );

  it("parses few of its events", () => {
    const parser = new ResponsesParser();
    const holds = (sse: string): boolean => parser.mayHold(sse.slice(sse.indexOf("data: ") + 6).trim());
    expect([created, lastEvent(), lastEvent("failed")].map(holds)).toEqual([true, true, true]);
    expect([outputDelta("response failed"), outputDelta('"response"'), ...responseText.slice(2, 4)].map(holds)).toEqual(
      [false, false, false, false],
    );
  });
});

describe("a response that came as one JSON", () => {
  const call = {
    id: "fc_1",
    type: "function_call",
    call_id: "call_1",
    name: "f",
    arguments: '{"a":1}',
    status: "completed",
  };
  const reasoning = {
    id: "rs_1",
    type: "reasoning",
    summary: [{ type: "summary_text", text: "Short." }],
    content: [{ type: "reasoning_text", text: "Long." }],
  };
  const search = { id: "ws_1", type: "web_search_call", status: "completed" };

  it("becomes the events that a stream would have had, each item opened and closed", () => {
    const response = wholeResponse({ output: [reasoning, search, call] }) as Record<string, unknown>;
    const events = [...unfoldResponse(response)];
    expect(events.map(({ name }) => name?.slice("response.".length))).toEqual([
      "created",
      "output_item.added",
      "reasoning_summary_part.added",
      "reasoning_summary_text.delta",
      "reasoning_summary_text.done",
      "reasoning_summary_part.done",
      "content_part.added",
      "reasoning_text.delta",
      "reasoning_text.done",
      "content_part.done",
      "output_item.done",
      "output_item.added",
      "output_item.done",
      "output_item.added",
      "function_call_arguments.delta",
      "function_call_arguments.done",
      "output_item.done",
      "completed",
    ]);
    expect(events.map(({ parsed }) => parsed.sequence_number)).toEqual(events.map((_, index) => index));
    expect(events.at(-1)).toMatchObject({ role: "last", parsed: { response } });
    expect(events[1]?.parsed.item).toEqual({ ...reasoning, summary: [], content: [] });
    expect(events[13]?.parsed.item).toEqual({ ...call, arguments: "", status: "in_progress" });
  });

  it.each([
    [wholeResponse(), null],
    [wholeResponse({ status: undefined }), null],
    [wholeResponse({ status: "incomplete", incomplete_details: { reason: "max_output_tokens" } }), null],
    [wholeResponse({ status: "failed", error: { code: "server_error", message: "no" } }), "server_error"],
    [wholeResponse({ status: "queued", output: [] }), "truncated"],
    [{ id: "resp_1", object: "response" }, "invalid_response"],
  ])("is read as %j", (response, fault) => {
    const read = readWhole(response);
    expect(read.fault).toBe(fault);
    if (fault === null) expect(read.usage).toEqual(responseUsage);
  });

  function readWhole(response: object) {
    const sink = { onEvent: () => undefined, onBatch: () => undefined, onEnd: () => undefined };
    const reader = new JsonReader(testProvider("whole"), sink, apis.responses.stream);
    reader.push(Buffer.from(JSON.stringify(response)));
    return { fault: reader.end()?.facts.kind ?? null, usage: reader.usage };
  }
});
