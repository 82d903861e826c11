import { textOrUnder, textString, textUnder } from "../../lib/json-text.ts";
import { hasValue, isCount, isFields, type AnswerFacts, type EventKind, type Fields } from "./answer-facts.ts";
import { findError } from "./reported-error.ts";
import type { ReportedError, ReportedUsage } from "../providers/provider.ts";

/** Text as such, or as a list of typed parts. */
const textOrParts = textOrUnder({ text: textString, thinking: textOrUnder({ text: textString }) });
const toolCall = textUnder({
  function: textUnder({ arguments: textString }),
  custom: textUnder({ input: textString }),
});
/** Some servers write the reasoning twice, under their own key and under another's. */
const delta = textUnder(
  {
    content: textOrParts,
    refusal: textString,
    tool_calls: toolCall,
    function_call: textUnder({ arguments: textString }),
  },
  {
    reasoning_content: textOrParts,
    reasoning: textOrParts,
    reasoning_text: textString,
    reasoning_details: textUnder({ text: textString, summary: textString }),
    thinking: textOrParts,
  },
);
const chunkText = textUnder({ choices: textUnder({}, { delta, message: delta, text: textString }) });

/** The facts of OpenAI's chunks, of chats and of text completions alike: both have `choices`, `usage` and `error`. */
export class ChatFacts implements AnswerFacts {
  readonly text = chunkText;
  usage: ReportedUsage | null = null;
  readonly prompt = null;
  /** The first one of any choice. */
  finishReason: string | null = null;
  error: ReportedError | null = null;
  finishing = false;

  /** [DONE] without a finish_reason is no ending: OpenAI's SDK throws on it. A finish_reason without [DONE] is one. */
  get complete(): boolean {
    return this.finishReason !== null;
  }

  /** Most events have `"usage":null` and `"finish_reason":null`. What has no choices may be an error as a whole. */
  mayHold(json: string): boolean {
    return (
      hasValue(json, '"finish', '_reason"') ||
      hasValue(json, '"', 'usage"') ||
      hasValue(json, '"e', 'rror"') ||
      !json.includes('"choices"')
    );
  }

  read(event: Fields): EventKind {
    this.finishing = false;
    this.error = findError(event);
    if (this.error !== null) return "error";
    const usage = readUsage(event.usage);
    if (usage !== null) this.usage = usage;
    const { choices } = event;
    if (!Array.isArray(choices)) return "content";
    const finishReason = readFinishReason(choices);
    this.finishing = finishReason !== null;
    this.finishReason ??= finishReason;
    // OpenAI's extra chunk has usage and `choices: []`.
    return choices.length === 0 && isFields(event.usage) ? "usage" : "content";
  }
}

function readFinishReason(choices: readonly unknown[]): string | null {
  for (const choice of choices) {
    if (isFields(choice) && typeof choice.finish_reason === "string") return choice.finish_reason;
  }
  return null;
}

/**
 * Reads a provider's `usage` object. Zero is zero; null only where the totals are missing or not whole numbers.
 * DeepSeek tells cache hits in `prompt_cache_hit_tokens`, OpenAI in `prompt_tokens_details.cached_tokens`.
 */
function readUsage(usage: unknown): ReportedUsage | null {
  if (!isFields(usage)) return null;
  const input = usage.prompt_tokens;
  const output = usage.completion_tokens;
  if (!isCount(input) || !isCount(output)) return null;
  const cached = usage.prompt_cache_hit_tokens ?? detail(usage.prompt_tokens_details, "cached_tokens");
  const reasoning = detail(usage.completion_tokens_details, "reasoning_tokens");
  return {
    input,
    output,
    // A part can't be more than its whole, whatever the provider says.
    cached: isCount(cached) ? Math.min(cached, input) : 0,
    reasoning: isCount(reasoning) ? Math.min(reasoning, output) : 0,
  };
}

function detail(details: unknown, key: string): unknown {
  return isFields(details) ? details[key] : undefined;
}
