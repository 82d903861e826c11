import type { ReportedUsage } from "../provider.ts";
import { isCount, isFields, type Fields } from "./event-parser.ts";

/**
 * Reads a `usage` object in OpenAI's shape. Zero is zero; null only where a count is missing that nothing else tells, or
 * is no whole number. Of prompt, completion and total, two tell the third. Cache hits are told in many ways: DeepSeek's
 * `prompt_cache_hit_tokens`, OpenAI's `prompt_tokens_details.cached_tokens`, Moonshot's `cached_tokens`.
 */
export function readUsage(usage: unknown): ReportedUsage | null {
  if (!isFields(usage)) return null;
  const total = count(usage.total_tokens);
  const prompt = count(usage.prompt_tokens) ?? count(usage.input_tokens);
  const completion = count(usage.completion_tokens) ?? count(usage.output_tokens);
  const input = prompt ?? rest(total, completion);
  const output = completion ?? rest(total, prompt);
  return input === null || output === null ? null : withParts(usage, input, output, total);
}

/** The same for an answer that has no output but vectors: what is counted is the prompt, alone or in total. */
export function readPromptUsage(usage: unknown): ReportedUsage | null {
  if (!isFields(usage)) return null;
  const output = count(usage.completion_tokens) ?? 0;
  const input = count(usage.prompt_tokens) ?? count(usage.input_tokens) ?? rest(count(usage.total_tokens), output);
  return input === null ? null : { input, cached: 0, output, reasoning: 0 };
}

function withParts(usage: Fields, input: number, output: number, total: number | null): ReportedUsage {
  const cached =
    count(usage.prompt_cache_hit_tokens) ??
    count(detail(usage.prompt_tokens_details, "cached_tokens")) ??
    count(detail(usage.input_tokens_details, "cached_tokens")) ??
    count(usage.cached_tokens) ??
    0;
  const reasoning = reasoningTokens(usage);
  // Some count the reasoning beside the completion; their total shows it.
  const all = total === input + output + reasoning ? output + reasoning : output;
  // A part can't be more than its whole, whatever the provider says.
  return { input, output: all, cached: Math.min(cached, input), reasoning: Math.min(reasoning, all) };
}

/** The part of `usage.output_tokens` that is reasoning, in Anthropic's shape. */
export function reasoningIn(usage: Fields): number {
  return Math.min(reasoningTokens(usage), count(usage.output_tokens) ?? 0);
}

function reasoningTokens(usage: Fields): number {
  return (
    count(detail(usage.completion_tokens_details, "reasoning_tokens")) ??
    count(detail(usage.output_tokens_details, "reasoning_tokens")) ??
    count(detail(usage.output_tokens_details, "thinking_tokens")) ??
    count(usage.reasoning_tokens) ??
    0
  );
}

/** Usage that is reported for each choice by itself: the prompt is the same one, the outputs add up. */
export function sumOfChoices(usages: Iterable<ReportedUsage>): ReportedUsage {
  let [input, cached, output, reasoning] = [0, 0, 0, 0];
  for (const usage of usages) {
    input = Math.max(input, usage.input);
    cached = Math.max(cached, usage.cached);
    output += usage.output;
    reasoning += usage.reasoning;
  }
  return { input, cached, output, reasoning };
}

export function detail(details: unknown, key: string): unknown {
  return isFields(details) ? details[key] : undefined;
}

function count(value: unknown): number | null {
  return isCount(value) ? value : null;
}

function rest(total: number | null, part: number | null): number | null {
  return total === null || part === null || part > total ? null : total - part;
}
