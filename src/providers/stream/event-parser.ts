import type { TextShape } from "../../lib/json-text.ts";
import type { Standing } from "./response-rules.ts";
import type { PromptUsage, ReportedError, ReportedUsage } from "../provider.ts";

/**
 * What an event of an answer is: part of it; a report of usage alone, which the proxy asked for; an aside that is no
 * part of the answer, such as a ping; the answer's own end; or an error, which is then in `error`.
 */
export type EventKind = "content" | "usage" | "aside" | "end" | "error";

/** What the events of one answer have said beyond their text, as far as it has come. One API's way of saying it. */
export interface EventParser {
  /** Where in an event the text is that the model has written: what an estimate of the output counts. */
  readonly text: TextShape;
  /** As last reported; null until then. */
  readonly usage: ReportedUsage | null;
  /** The prompt, where a provider reports it before the rest; null until then. */
  readonly prompt: PromptUsage | null;
  readonly error: ReportedError | null;
  readonly standing: Standing;
  /** Choices that were seen; of an answer without choices, 1. */
  readonly choices: number;
  /** Whether the event that was read last says why the answer, or one of its choices, is over. */
  readonly finishing: boolean;
  /**
   * Whether the event may hold facts and is worth parsing. Most are one token of text, and cost a few native searches
   * instead of a JSON.parse. Inside a JSON string quotes would be escaped, so a quoted word in the bytes can only be a
   * key or a string of its own.
   * @param json bytes of the event's JSON as latin1: only ASCII is looked for
   */
  mayHold(json: string): boolean;
  /** Takes in an event. */
  read(event: Fields): EventKind;
}

export type Fields = Readonly<Record<string, unknown>>;

/**
 * Whether a key stands in the JSON with a value other than null and "". The key comes in two parts, with its quotes: what is
 * looked for is the second one. V8 looks for the first character before all others, and quotes are everywhere: from a
 * letter on, the search takes a third of the time.
 */
export function hasValue(json: string, head: string, tail: string): boolean {
  for (let at = json.indexOf(tail); at !== -1; at = json.indexOf(tail, at)) {
    const isKey = json.startsWith(head, at - head.length);
    at = skipSpace(json, at + tail.length);
    if (!isKey || json.charCodeAt(at) !== 0x3a) continue;
    at = skipSpace(json, at + 1);
    if (!json.startsWith("null", at) && !json.startsWith('""', at)) return true;
  }
  return false;
}

export function skipSpace(json: string, from: number): number {
  let at = from;
  while (json.charCodeAt(at) <= 0x20) at++;
  return at;
}

const keepAliveName = /^(?:ping|keep[-_]?alive|heart[-_]?beat)$/i;

/** Whether an event says nothing but that the line is alive. */
export function isKeepAlive(event: Fields): boolean {
  const name = event.type ?? event.event ?? event.object;
  if (typeof name === "string") return keepAliveName.test(name.slice(0, 20));
  return Object.keys(event).length === 0;
}

export function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

export function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
