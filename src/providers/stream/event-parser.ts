import type { TextShape } from "../../lib/json-text.ts";
import type { Standing } from "./response-rules.ts";
import type { PromptUsage, ReportedError, ReportedUsage } from "./reported.ts";

/**
 * What an event is: part of the response; a usage report alone, which the proxy requested; an aside that is not part of
 * the response, such as a ping; the end of the response, which the proxy writes itself; the last event of the response,
 * which is passed on; an error, which is then in `error`; or an event of another API, which the client can't read.
 */
export type EventKind = "content" | "usage" | "aside" | "end" | "last" | "error" | "foreign";

/**
 * Collects the facts in the events of one response, which is everything but the text. One implementation for each API.
 */
export interface EventParser {
  /** The places of model-generated text in an event, which the output estimate counts. */
  readonly text: TextShape;
  /** As last reported; null until then. */
  readonly usage: ReportedUsage | null;
  /** The prompt's tokens, if a provider reports them before the rest; null until then. */
  readonly prompt: PromptUsage | null;
  readonly error: ReportedError | null;
  readonly standing: Standing;
  /** Number of choices so far; 1 for an API without choices. */
  readonly choices: number;
  /** Whether the last event read has the finish reason of the response or of one of its choices. */
  readonly finishing: boolean;
  /**
   * Whether the event may hold facts and must be parsed. Most are one token of text, and cost a few native searches
   * instead of a JSON.parse. Quotes inside a JSON string are escaped, so a quoted word can only be a key or a complete
   * string.
   * @param json bytes of the event's JSON as latin1: only ASCII is searched for
   */
  mayHold(json: string): boolean;
  /** Reads the facts of an event. */
  read(event: Fields): EventKind;
}

export type Fields = Readonly<Record<string, unknown>>;

/**
 * Whether the JSON has a key with a value other than null and "". The key is given in two parts, with its quotes, and
 * the second one is searched for: V8 searches for the first character first, and quotes are everywhere, so that a
 * search that starts with a letter takes a third of the time.
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

/** Whether an event of this name only keeps the connection alive. */
export function isKeepAliveName(name: string): boolean {
  return keepAliveName.test(name.slice(0, 20));
}

/** Whether an event only keeps the connection alive. */
export function isKeepAlive(event: Fields): boolean {
  const name = event.type ?? event.event ?? event.object;
  if (typeof name === "string") return isKeepAliveName(name);
  return Object.keys(event).length === 0;
}

/** The form of an event, if it is that of one API alone. Chats and text completions differ in their choices only. */
export function formOf({ type, choices }: Fields): "choices" | "messages" | "responses" | null {
  if (typeof type === "string") {
    if (type.startsWith("response.")) return "responses";
    if (/^(?:message_(?:start|delta|stop)$|content_block_)/.test(type)) return "messages";
  }
  return Array.isArray(choices) && choices.length > 0 ? "choices" : null;
}

export function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

export function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
