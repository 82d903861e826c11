import { isTooComplex } from "../../lib/json-object.ts";

/*
 * Decides when a response is complete, and which form a body has that was not sent as requested. Nothing else decides
 * either.
 */

/**
 * How far a response has come, by its finish reasons.
 * - unfinished: at least one choice has no finish_reason (or stop_reason) that is a non-empty text
 * - finished: each choice has one
 * - given_up: one of them says that the provider could not finish
 */
export type Standing = "unfinished" | "finished" | "given_up";

/**
 * How a response ended.
 * - done: with its own end, such as [DONE] or message_stop, or with any data after which nothing was missing
 * - end: with a clean end of the body, without the above
 * - break: with a reset, a deadline, or an end in the middle of HTTP's framing
 */
export type StreamEnding = "done" | "end" | "break";

/**
 * - complete: it is charged, and the client gets its ending
 * - unfinished, truncated: a broken response; the provider takes an unfinished one for complete, so that a retry could
 *   only get the same
 * - broken: the error that broke it decides
 * - given_up: the provider is overloaded
 */
type Verdict = "complete" | "unfinished" | "truncated" | "broken" | "given_up";

const verdicts: Readonly<Record<Standing, Readonly<Record<StreamEnding, Verdict>>>> = {
  unfinished: { done: "unfinished", end: "truncated", break: "broken" },
  finished: { done: "complete", end: "complete", break: "complete" },
  given_up: { done: "given_up", end: "given_up", break: "given_up" },
};

/** What is wrong with a response whose form is that of another API than the one that was asked. */
export const ofOtherApi = "the response is of another API";

/** The verdict on a response of which nothing more is read. */
export function verdictOf(standing: Standing, ending: StreamEnding): Verdict {
  return verdicts[standing][ending];
}

/** Finish reasons of providers that could not finish. */
const brokenFinishes: ReadonlySet<string> = new Set([
  // DeepSeek
  "insufficient_system_resource",
  // Zhipu
  "network_error",
  // OpenRouter
  "error",
  // vLLM and SGLang
  "abort",
]);

/** The standing of one choice by its finish_reason, which only counts if it is a non-empty text. */
export function standingOf(finishReason: unknown): Standing {
  if (typeof finishReason !== "string" || finishReason === "") return "unfinished";
  return brokenFinishes.has(finishReason) ? "given_up" : "finished";
}

/** How long to wait for a usage report after the last finish_reason, and for more data after a report, in ms. */
const usageGraceMs = 2000;
const endGraceMs = 250;

/**
 * How long to wait for optional data, in ms; null if something required is missing.
 * @param reported whether usage has been reported
 */
export function graceMs(standing: Standing, reported: boolean): number | null {
  if (standing === "unfinished") return null;
  return reported ? endGraceMs : usageGraceMs;
}

/** The form of a body with status 200: events, one JSON, or unreadable. */
export type BodyShape = "events" | "json" | "unreadable";

export type MediaClass = "events" | "json" | "unsaid" | "vague";
type Beginning = "brace" | "field" | "other";

/** JSON is valid even if a stream was requested, and so is a stream with a vague media type. */
const shapes: Readonly<Record<MediaClass, Readonly<Record<Beginning, BodyShape>>>> = {
  events: { brace: "json", field: "events", other: "events" },
  json: { brace: "json", field: "events", other: "json" },
  unsaid: { brace: "json", field: "events", other: "events" },
  vague: { brace: "json", field: "events", other: "unreadable" },
};

const vagueTypes: ReadonlySet<string> = new Set(["text/plain", "application/octet-stream", "binary/octet-stream"]);

/** The class of a Content-Type (RFC 9110, 8.3.1: case and parameters don't matter); null if such a body is not read. */
export function mediaClassOf(contentType: string): MediaClass | null {
  const type = (contentType.split(";", 1)[0] ?? "").trim().toLowerCase();
  if (type === "") return "unsaid";
  if (type === "text/event-stream") return "events";
  if (type === "application/json" || type === "text/json" || type.endsWith("+json")) return "json";
  return vagueTypes.has(type) ? "vague" : null;
}

const openBrace = 0x7b;
const colon = 0x3a;
const byteOrderMark = Buffer.from("\uFEFF");
const fields = ["data:", "event:", "id:", "retry:"].map((field) => Buffer.from(field));
const longestField = 6;

/**
 * The form of a body by its first bytes; null if there are too few.
 * @param whole whether no more bytes will come
 */
export function shapeOf(media: MediaClass, head: Buffer, whole: boolean): BodyShape | null {
  const beginning = beginningOf(head) ?? (whole ? "other" : null);
  return beginning === null ? null : shapes[media][beginning];
}

function beginningOf(head: Buffer): Beginning | null {
  const mark = head.subarray(0, byteOrderMark.length);
  let at = byteOrderMark.subarray(0, mark.length).equals(mark) ? mark.length : 0;
  while (at < head.length && (head[at] ?? 0) <= 0x20) at++;
  if (at === head.length) return null;
  if (head[at] === openBrace) return "brace";
  if (head[at] === colon) return "field";
  const start = head.subarray(at, at + longestField);
  if (fields.some((field) => start.subarray(0, field.length).equals(field))) return "field";
  return fields.some((field) => field.subarray(0, start.length).equals(start)) ? null : "other";
}

/** JSON of a provider up to this size is parsed without a look at its keys, in bytes. */
const plainJsonBytes = 256 << 10;
/** Far more than any API has. Keys that occur again, and values, are parsed quickly, however many there are. */
const jsonLimits = { maxDepth: 2000, maxKeys: Infinity, maxNewKeys: 20_000, maxValues: Infinity };

/** Whether a provider's JSON would hold up all other requests while it is parsed and copied. */
export function isTooComplexJson(bytes: Buffer, start = 0, end = bytes.length): boolean {
  return end - start > plainJsonBytes && isTooComplex(bytes.subarray(start, end), jsonLimits);
}
