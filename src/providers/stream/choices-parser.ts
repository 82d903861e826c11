import { textOrUnder, textString, textUnder } from "../../lib/json-text.ts";
import { formOf, hasValue, isFields, isKeepAlive, skipSpace } from "./event-parser.ts";
import type { EventParser, EventKind, Fields } from "./event-parser.ts";
import { standingOf, type Standing } from "./response-rules.ts";
import type { ReportedError, ReportedUsage } from "./reported.ts";
import { findError } from "./reported-error.ts";
import { readUsage, sumOfChoices } from "./usage.ts";

/** Most choices that are tracked; a response with more can't be complete. */
const maxChoices = 10_000;
/** Fields in the usage chunks of OpenAI and others that carry nothing but framing and usage. */
const framing = new Set(
  "id object created model choices usage system_fingerprint service_tier provider obfuscation p".split(" "),
);

/** Plain text, or a list of typed parts. */
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

/** The APIs whose chunks have choices. */
export type ChoicesApi = "chat" | "completions";

/**
 * Parses OpenAI's chunks, of chats and text completions alike: both have `choices`, `usage` and `error`. Each choice
 * needs its own finish_reason, of which the last one counts. [DONE] without them does not complete a response: OpenAI's
 * SDK throws on it.
 */
export class ChoicesParser implements EventParser {
  readonly text = chunkText;
  usage: ReportedUsage | null = null;
  readonly prompt = null;
  error: ReportedError | null = null;
  finishing = false;
  /** For each choice so far, by its index. */
  readonly #standings = new Map<number, Standing>();
  #unfinished = 0;
  #givenUp = 0;
  /** The last usage of each choice, if usage comes with the choices. */
  #choiceUsages: Map<number, ReportedUsage> | null = null;
  readonly #api: ChoicesApi;
  /** Whether a choice has had the form of this API. */
  #hasBegun = false;

  constructor(api: ChoicesApi) {
    this.#api = api;
  }

  get choices(): number {
    return this.#standings.size;
  }

  get standing(): Standing {
    if (this.#givenUp > 0) return "given_up";
    return this.#unfinished === 0 && this.#standings.size > 0 ? "finished" : "unfinished";
  }

  /**
   * Most events have `"usage":null` and `"finish_reason":null`. An event without choices may be an error as a whole. A
   * new choice is a fact as well, and one without an index may be new.
   */
  mayHold(json: string): boolean {
    return (
      hasValue(json, '"finish', '_reason"') ||
      hasValue(json, '"', 'usage"') ||
      hasValue(json, '"e', 'rror"') ||
      !json.includes('"choices"') ||
      this.#mayHoldNewChoice(json)
    );
  }

  read(event: Fields): EventKind {
    this.finishing = false;
    this.error = findError(event);
    if (this.error !== null) return "error";
    const { choices } = event;
    if (!Array.isArray(choices)) {
      if (!this.#hasBegun && formOf(event) !== null) return "foreign";
      this.#readUsage(event, false);
      return isKeepAlive(event) ? "aside" : "content";
    }
    if (!this.#hasBegun) {
      const form = choicesForm(this.#api, choices);
      // Clients of this API can't read it, and it says nothing.
      if (form === "opening") return "aside";
      if (form === "foreign") return "foreign";
      this.#hasBegun = form === "own";
    }
    let inChoice = false;
    for (let position = 0; position < choices.length; position++) {
      const choice: unknown = choices[position];
      if (isFields(choice) && this.#readChoice(choice, position)) inChoice = true;
    }
    this.#readUsage(event, inChoice);
    return choices.length === 0 && isFields(event.usage) && isBare(event) ? "usage" : "content";
  }

  /** Whether the choice reports usage. */
  #readChoice(choice: Fields, position: number): boolean {
    const index = Number.isSafeInteger(choice.index) ? Number(choice.index) : position;
    const standing = standingOf(choice.finish_reason);
    if (standing !== "unfinished") this.finishing = true;
    const before = this.#standings.get(index);
    if (before === undefined || (standing !== "unfinished" && standing !== before)) this.#note(index, before, standing);
    const usage = readUsage(choice.usage ?? usageIn(choice.delta) ?? usageIn(choice.message));
    if (usage === null) return false;
    (this.#choiceUsages ??= new Map()).set(index, usage);
    return true;
  }

  #note(index: number, before: Standing | undefined, now: Standing): void {
    this.#unfinished += Number(now === "unfinished") - Number(before === "unfinished");
    this.#givenUp += Number(now === "given_up") - Number(before === "given_up");
    if (before !== undefined || this.#standings.size < maxChoices) this.#standings.set(index, now);
    else this.#unfinished = Infinity;
  }

  /**
   * Usage may be in its own field, in another object such as `x_groq`, or with the choices.
   * @param inChoice whether one of the event's choices reports usage
   */
  #readUsage(event: Fields, inChoice: boolean): void {
    let usage = readUsage(event.usage);
    if (usage === null) for (const key in event) usage ??= readUsage(usageIn(event[key]));
    if (usage === null && inChoice && this.#choiceUsages !== null) usage = sumOfChoices(this.#choiceUsages.values());
    this.usage = usage ?? this.usage;
  }

  #mayHoldNewChoice(json: string): boolean {
    const key = 'index"';
    let at = json.indexOf(key);
    if (at === -1) return true;
    for (; at !== -1; at = json.indexOf(key, at)) {
      at += key.length;
      const index = wholeNumberAt(json, at);
      if (index === null || !this.#standings.has(index)) return true;
    }
    return false;
  }
}

/**
 * The form of the choices before one has begun: of this API; of the other one; that of the other one, but without content:
 * some open or end a text completion as others do a chat; null if it can't be seen.
 */
function choicesForm(api: ChoicesApi, choices: readonly unknown[]): "own" | "foreign" | "opening" | null {
  let form: "foreign" | "opening" | null = null;
  for (const choice of choices) {
    if (!isFields(choice)) continue;
    const { delta, message, text } = choice;
    const chat = isFields(delta) ? delta : isFields(message) ? message : null;
    const other = api === "chat" ? text : chat;
    if (api === "chat" ? chat !== null : typeof text === "string") return "own";
    if (api === "chat" ? typeof text !== "string" : chat === null) continue;
    if (standingOf(choice.finish_reason) !== "unfinished" || hasContent(other)) form = "foreign";
    else form ??= "opening";
  }
  return form;
}

/** Whether a text, or the delta of a chat, says anything. */
function hasContent(said: unknown): boolean {
  if (!isFields(said)) return said !== "";
  return Object.entries(said).some(([key, value]) => key !== "role" && isSaid(value));
}

function isSaid(value: unknown): boolean {
  return value !== null && value !== "" && !(Array.isArray(value) && value.length === 0);
}

/** The number after a key's closing quote; null unless the whole value is plain digits. */
function wholeNumberAt(json: string, from: number): number | null {
  const colon = skipSpace(json, from);
  const start = skipSpace(json, colon + 1);
  let end = start;
  while (end < start + 9 && json.charCodeAt(end) >= 0x30 && json.charCodeAt(end) <= 0x39) end++;
  const next = json[skipSpace(json, end)];
  const isWhole = json[colon] === ":" && end > start && (next === "," || next === "}");
  return isWhole ? Number(json.slice(start, end)) : null;
}

function usageIn(value: unknown): unknown {
  return isFields(value) ? value.usage : undefined;
}

/** Whether a chunk with usage and no choices has nothing else: it came because the proxy requested it. */
function isBare(event: Fields): boolean {
  return Object.entries(event).every(([key, value]) => framing.has(key) || value === null);
}
