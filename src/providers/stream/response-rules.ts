/*
 * When an answer is complete, and what a body is that was not sent as it was asked for. Nothing else decides either.
 */

/**
 * How far an answer has come by its own account.
 * - unfinished: a choice that was seen has no finish_reason (or stop_reason) that is a text with something in it
 * - finished: each of them has
 * - given_up: one of them says that the provider could not finish
 */
export type Standing = "unfinished" | "finished" | "given_up";

/**
 * What was the last of an answer.
 * - done: its own end, such as [DONE] or message_stop, or whatever a provider says where nothing is missing any more
 * - end: a clean end of the body without one
 * - break: a reset, a deadline, an end in the middle of HTTP's own framing
 */
export type StreamEnding = "done" | "end" | "break";

/**
 * - complete: it is charged, and the client gets its ending
 * - unfinished, truncated: a broken answer; the first one the provider believes to be whole, so that to ask again could
 *   only bring the same
 * - broken: what broke it decides
 * - given_up: the provider is overloaded
 */
type Verdict = "complete" | "unfinished" | "truncated" | "broken" | "given_up";

const verdicts: Readonly<Record<Standing, Readonly<Record<StreamEnding, Verdict>>>> = {
  unfinished: { done: "unfinished", end: "truncated", break: "broken" },
  finished: { done: "complete", end: "complete", break: "complete" },
  given_up: { done: "given_up", end: "given_up", break: "given_up" },
};

/** What an answer has come to once nothing more is read of it. */
export function verdictOf(standing: Standing, ending: StreamEnding): Verdict {
  return verdicts[standing][ending];
}

/** Finish reasons by which providers say that they could not finish. */
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

/** What one choice says by a finish_reason: nothing, unless it is a text with something in it. */
export function standingOf(finishReason: unknown): Standing {
  if (typeof finishReason !== "string" || finishReason === "") return "unfinished";
  return brokenFinishes.has(finishReason) ? "given_up" : "finished";
}

/** How long a report of usage is waited for behind the last finish_reason, and what may follow a report, in ms. */
const usageGraceMs = 2000;
const endGraceMs = 250;

/**
 * How long what may still come of an answer is waited for, in ms; null where something is missing that must come.
 * @param reported whether usage was
 */
export function graceMs(standing: Standing, reported: boolean): number | null {
  if (standing === "unfinished") return null;
  return reported ? endGraceMs : usageGraceMs;
}

/** What a body under 200 is: events, one JSON, or nothing that could be read. */
export type BodyShape = "events" | "json" | "unreadable";

export type MediaClass = "events" | "json" | "unsaid" | "vague";
type Beginning = "brace" | "field" | "other";

/** JSON where a stream was asked for is an answer all the same, and so is a stream under a vague name. */
const shapes: Readonly<Record<MediaClass, Readonly<Record<Beginning, BodyShape>>>> = {
  events: { brace: "json", field: "events", other: "events" },
  json: { brace: "json", field: "events", other: "json" },
  unsaid: { brace: "json", field: "events", other: "events" },
  vague: { brace: "json", field: "events", other: "unreadable" },
};

const vagueTypes: ReadonlySet<string> = new Set(["text/plain", "application/octet-stream", "binary/octet-stream"]);

/** The class of a Content-Type (RFC 9110, 8.3.1: case and parameters don't matter); null where nothing of it is read. */
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
 * What a body is by its first bytes; null where they are too few to tell.
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
