import { textString, textUnder } from "../../lib/json-text.ts";
import { formOf, hasValue, isCount, isFields, isKeepAlive } from "./event-parser.ts";
import type { EventParser, EventKind, Fields } from "./event-parser.ts";
import { standingOf, type Standing } from "./response-rules.ts";
import type { PromptUsage, ReportedError, ReportedUsage } from "./reported.ts";
import { findError } from "./reported-error.ts";
import { detail, reasoningIn } from "./usage.ts";

const blockText = textUnder({ text: textString, thinking: textString });
const eventText = textUnder({
  delta: textUnder({ text: textString, thinking: textString, partial_json: textString }),
  content_block: blockText,
  message: textUnder({ content: blockText }),
});

/**
 * Parses Anthropic's events. The prompt's tokens come with `message_start`, those of the output with `message_delta`,
 * which may repeat the prompt's; the last value of each counts. Some servers begin with zeros and report the real
 * counts at the end, others end with a zero for the prompt. There is no usage until both are counted.
 */
export class MessagesParser implements EventParser {
  readonly text = eventText;
  usage: ReportedUsage | null = null;
  prompt: PromptUsage | null = null;
  error: ReportedError | null = null;
  finishing = false;
  standing: Standing = "unfinished";
  readonly choices = 1;
  /** Whether an event has had the form of this API. */
  #hasBegun = false;
  /** Prompt tokens that were not cached, that were written to a cache, and that were read from one. */
  #fresh = 0;
  #stored = 0;
  #cached = 0;
  /** The output's tokens as last reported; null until then. */
  #said: Pick<ReportedUsage, "output" | "reasoning"> | null = null;

  /** An event that is of no content block may be the end, a ping, or an error in any form. */
  mayHold(json: string): boolean {
    return (
      hasValue(json, '"', 'usage"') ||
      hasValue(json, '"stop', '_reason"') ||
      hasValue(json, '"e', 'rror"') ||
      !json.includes('"content_block_')
    );
  }

  read(event: Fields): EventKind {
    this.finishing = false;
    this.error = findError(event);
    if (this.error !== null) return "error";
    if (!this.#hasBegun) {
      const form = formOf(event);
      if (form !== null && form !== "messages") return "foreign";
      this.#hasBegun = form !== null;
    }
    switch (event.type) {
      case "message_start":
        if (isFields(event.message)) this.#readPrompt(event.message.usage);
        return "content";
      case "message_delta":
        this.#readEnd(event);
        return "content";
      case "message_stop":
        this.#readEnd(event);
        return "end";
      default:
        return isKeepAlive(event) ? "aside" : "content";
    }
  }

  #readPrompt(usage: unknown): void {
    if (!isFields(usage)) return;
    const { input_tokens: fresh, cache_creation_input_tokens: stored, cache_read_input_tokens: cached } = usage;
    // No prompt is empty: zeros alone only mean that nothing is counted here.
    if (![fresh, stored, cached].some((tokens) => isCount(tokens) && tokens > 0)) return;
    if (isCount(fresh)) this.#fresh = fresh;
    if (isCount(stored)) this.#stored = stored;
    if (isCount(cached)) this.#cached = cached;
    this.prompt = { input: this.#fresh + this.#stored + this.#cached, cached: this.#cached };
  }

  #readEnd({ delta, usage }: Fields): void {
    const standing = standingOf(detail(delta, "stop_reason"));
    if (standing !== "unfinished") {
      this.standing = standing;
      this.finishing = true;
    }
    if (!isFields(usage)) return;
    this.#readPrompt(usage);
    const { input_tokens: input, output_tokens: output } = usage;
    if (isCount(output)) this.#said = { output, reasoning: reasoningIn(usage) };
    // That nothing at all was used is believed in the end, as it is for chats.
    if (this.prompt === null && input === 0 && output === 0) this.prompt = { input, cached: 0 };
    if (this.prompt !== null && this.#said !== null) this.usage = { ...this.prompt, ...this.#said };
  }
}
