import { describe, expect, test } from "vitest";
import { parseTraceContext, traceHeaders } from "../../src/lib/trace-context.ts";

const traceId = "0af7651916cd43dd8448eb211c80319c";
const spanId = "b7ad6b7169203331";
const valid = `00-${traceId}-${spanId}-01`;

describe("the trace context of a request", () => {
  test.each([
    ["of this version", valid, 1],
    ["not sampled", `00-${traceId}-${spanId}-00`, 0],
    ["of a later version, with more fields", `01-${traceId}-${spanId}-03-what-comes`, 3],
  ])("%s is read", (_name, traceparent, flags) => {
    expect(parseTraceContext({ traceparent })).toEqual({ traceId, spanId, flags, state: "" });
  });

  test.each([
    ["none", undefined],
    ["an empty one", ""],
    ["upper case", valid.toUpperCase()],
    ["no trace", `00-${"0".repeat(32)}-${spanId}-01`],
    ["no span", `00-${traceId}-${"0".repeat(16)}-01`],
    ["the forbidden version", `ff-${traceId}-${spanId}-01`],
    ["more fields in this version", `${valid}-more`],
    ["too short an id", `00-${traceId.slice(1)}-${spanId}-01`],
    ["two of them, as Node joins them", `${valid}, ${valid}`],
    ["a very long one", `01-${traceId}-${spanId}-01-${"x".repeat(1000)}`],
    ["something else", "sentinel"],
  ])("%s is none", (_name, traceparent) => {
    expect(parseTraceContext({ traceparent })).toBeNull();
  });

  test("a state is passed on whole, or not at all", () => {
    const stateOf = (tracestate: string | string[]) => parseTraceContext({ traceparent: valid, tracestate })?.state;
    expect(stateOf("a=1,b=2")).toBe("a=1,b=2");
    expect(stateOf(["a=1", "b=2"])).toBe("a=1,b=2");
    expect(stateOf(`a=${"x".repeat(600)}`)).toBe("");
    expect(stateOf("a=\u00e9")).toBe("");
  });

  test("what is passed on is what came, with the flags that are known", () => {
    const headers = { traceparent: `01-${traceId}-${spanId}-ff-more`, tracestate: "a=1" };
    const context = parseTraceContext(headers);
    expect(context && traceHeaders(context)).toEqual({ traceparent: `00-${traceId}-${spanId}-03`, tracestate: "a=1" });
    const plain = parseTraceContext({ traceparent: valid });
    expect(plain && traceHeaders(plain)).toEqual({ traceparent: valid });
  });
});
