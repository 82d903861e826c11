import type { Charge, Outcome, Settlement, TokenUsage } from "../quota/ledger.ts";
import type { AnswerReader } from "../upstream/answer-reader.ts";
import type { ChatRequest } from "./chat-request.ts";

/** Bytes of JSON that make a token, on the low side: an estimate should rather be too high than too low. */
const bytesPerToken = 3;

/** Output held for a request that names no max_tokens. */
const defaultMaxTokens = 8192;

/** Tokens that the prompt may come to, from its size alone. */
function promptEstimate(request: ChatRequest): number {
  return Math.ceil(request.bytes / bytesPerToken);
}

/** What is charged at the first data event: one request, and the prompt as estimated. */
export function firstCharge(request: ChatRequest, currency: string): Charge {
  return { requests: 1, tokens: promptEstimate(request), cost: 0, currency };
}

/** The most that the request can come to. */
export function upperBound(request: ChatRequest, currency: string): Charge {
  const output = (request.maxTokens ?? defaultMaxTokens) * request.choices;
  return { requests: 1, tokens: promptEstimate(request) + output, cost: 0, currency };
}

/**
 * The last word on a request whose first event was delivered. What the provider reported counts; where it reported
 * nothing, the prompt's estimate and what the events suggest, flagged. An answer that the provider broke costs nothing.
 */
export function settlement(
  outcome: Outcome,
  request: ChatRequest,
  reader: Pick<AnswerReader, "usage" | "outputTokens">,
  currency: string,
): Settlement {
  const estimated = reader.usage === null;
  const usage: TokenUsage = reader.usage ?? {
    input: promptEstimate(request),
    cached: 0,
    output: reader.outputTokens,
    reasoning: 0,
  };
  const free = outcome === "upstream_failed";
  const charge: Charge = free
    ? { requests: 0, tokens: 0, cost: 0, currency }
    : { requests: 1, tokens: usage.input + usage.output, cost: 0, currency };
  return { outcome, charge, usage, estimated };
}

/** The last word on a request that never got a data event: nothing. */
export function nothingOwed(outcome: Outcome, currency: string): Settlement {
  return {
    outcome,
    charge: { requests: 0, tokens: 0, cost: 0, currency },
    usage: { input: 0, cached: 0, output: 0, reasoning: 0 },
    estimated: false,
  };
}
