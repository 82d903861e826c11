import type { ReportedUsage } from "./reported.ts";
import { isCount, isFields, type Fields } from "./event-parser.ts";

/**
 * Reads a `usage` object in OpenAI's format. Zero is a valid count; null if a count is missing and can't be derived, or
 * is not a whole number. Of prompt, completion and total, two give the third. Cache hits have many names: DeepSeek's
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

/** Reads the usage of embeddings, which have no output tokens: only the prompt is counted, alone or as the total. */
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
  const reported = reasoningTokens(usage);
  const beyond = total === null ? 0 : Math.max(total - input - output, 0);
  // Some count reasoning separately from the completion, and some of them, such as Gemini, report it in the total alone.
  const isBeside = reported === beyond || (reported === 0 && cached <= input && !countsCacheBeside(usage));
  const all = isBeside ? output + beyond : output;
  const reasoning = isBeside && reported === 0 ? beyond : reported;
  // A part can't be more than the whole, whatever the provider reports.
  return { input, output: all, cached: Math.min(cached, input), reasoning: Math.min(reasoning, all) };
}

/** Whether there are cached tokens that the total may have and the prompt not, as Anthropic counts them. */
function countsCacheBeside(usage: Fields): boolean {
  return (count(usage.cache_read_input_tokens) ?? 0) + (count(usage.cache_creation_input_tokens) ?? 0) > 0;
}

/** The part of `usage.output_tokens` that is reasoning, in Anthropic's format. */
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

/** Adds up usage that is reported for each choice: the prompt is the same for all, the outputs are summed. */
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

/** Usage whose tokens can be added up; null for what can't be true. */
export function countable(usage: ReportedUsage | null): ReportedUsage | null {
  return usage !== null && isCount(usage.input + usage.output) ? usage : null;
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
