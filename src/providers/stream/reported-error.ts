import type { ReportedError } from "./reported.ts";
import { isFields, type Fields } from "./event-parser.ts";

/** Longest text that is kept of a body that is not JSON, in characters. */
const maxText = 500;
/** Longest message, and longest code, type or param. */
const maxMessage = 2000;
const maxName = 200;
/** How deep, and in how many entries, to look for an error's message. */
const maxDepth = 4;
const maxEntries = 10;

/** An error without any information. */
export const emptyError: ReportedError = { status: null, code: "", type: "", message: "", param: "", other: {} };

/** In order of precedence. */
const messageKeys = [
  "message",
  "detail",
  "msg",
  "error_description",
  "error_message",
  "error_msg",
  "status_msg",
  "description",
  "title",
  "reason",
] as const;
const codeKeys = ["code", "error_code", "status_code"] as const;
const statusKeys = ["code", "status_code", "status", "statusCode", "http_status", "http_code"] as const;
/** Read into fields of their own, so not among the other fields. */
const readKeys: ReadonlySet<string> = new Set(["code", "message", "param", "error", "detail"]);

/** Reads the value of an `error` key: an object, or sometimes bare text; null if it means no error. */
function readError(error: unknown): ReportedError | null {
  // As in the SDKs: any truthy value is an error.
  if (error === undefined || error === null || error === false || error === 0 || error === "") return null;
  if (typeof error === "string") return { ...emptyError, message: cutText(error) };
  if (Array.isArray(error)) return readError(error[0]) ?? emptyError;
  return isFields(error) ? readFields(error, error) : emptyError;
}

/**
 * Finds an error in an event or in a response with a good status: under `error`, in one of the choices, or the whole
 * object. Null if there is none.
 */
export function findError(event: Fields): ReportedError | null {
  const { choices } = event;
  const own = readError(event.error);
  if (own !== null) return withSiblings(own, event);
  if (Array.isArray(choices)) {
    for (const choice of choices) {
      const error = isFields(choice) ? readError(choice.error) : null;
      if (error !== null) return error;
    }
    return null;
  }
  return isErrorItself(event) ? readFields(event, event) : null;
}

/** Reads a body that is an error as a whole, as JSON of any form or as bare text. HTML is ignored. */
export function readErrorBody(body: string): ReportedError {
  let text = body;
  let parsed = parsedJson(text);
  if (parsed === undefined) {
    text = dataIn(body) ?? body;
    parsed = parsedJson(text);
  }
  if (parsed === undefined) return { ...emptyError, message: cutText(text) };
  if (Array.isArray(parsed)) parsed = parsed.find(isFields);
  if (typeof parsed === "string") return { ...emptyError, message: cutText(parsed) };
  if (!isFields(parsed)) return emptyError;
  const own = readError(parsed.error) ?? readFirst(parsed.errors) ?? readInside(parsed.detail);
  const error = own === null ? readFields(parsed, parsed) : withSiblings(own, parsed);
  if (error.message !== "" || error.code !== "" || error.type !== "" || Object.keys(parsed).length === 0) return error;
  // An object of an unknown form is still useful to a person.
  return { ...error, message: cutText(text) };
}

/** Undefined if the text is no JSON. */
function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * The data of the first event in a body that is a stream of events: some servers send even a refusal in the form that
 * was asked for. Null if it is none.
 */
function dataIn(body: string): string | null {
  let data: string | null = null;
  for (const line of body.split(/\r?\n/)) {
    const field = /^(data|event|id|retry|):/.exec(line)?.[1];
    if (field === undefined && line.trim() !== "") return null;
    if (field === "data") data = (data === null ? "" : `${data}\n`) + line.slice("data:".length).trimStart();
    else if (field === undefined && data !== null) break;
  }
  return data;
}

function readFirst(errors: unknown): ReportedError | null {
  return Array.isArray(errors) ? readError(errors[0]) : null;
}

/** FastAPI puts any error under `detail`. */
function readInside(detail: unknown): ReportedError | null {
  return isFields(detail) ? readError(detail.error ?? detail) : null;
}

/**
 * Whether an object without `error` is itself one: `{"object":"error",...}`, or a message with a code and no output.
 */
function isErrorItself(event: Fields): boolean {
  if (event.object === "error" || event.type === "error") return true;
  if ("data" in event || "type" in event || "usage" in event) return false;
  if (textOf(event, maxDepth) === "") return false;
  if (statusOf(event) !== null || "detail" in event) return true;
  const code = firstName(event, codeKeys);
  // Some servers wrap every response, with a code for success that is a number or a word.
  return code !== "" && !/^(?:\d{1,3}|ok|success)$/i.test(code);
}

/** Fills gaps of `{"error": …}` from the fields next to it: `{"error":"Bad Request","message":"too long"}`. */
function withSiblings(error: ReportedError, body: Fields): ReportedError {
  const beside = readFields(body, {});
  const named = typeof body.error === "string" && beside.message !== "";
  return {
    status: error.status ?? beside.status,
    code: error.code === "" ? beside.code : error.code,
    type: error.type === "" ? (named ? nameOf(body.error) : beside.type) : error.type,
    message: error.message === "" || named ? beside.message : error.message,
    param: error.param === "" ? beside.param : error.param,
    other: error.other,
  };
}

/** @param other the object whose remaining fields are kept */
function readFields(error: Fields, other: Fields): ReportedError {
  const type = nameOf(error.type);
  return {
    status: statusOf(error),
    code: firstName(error, codeKeys),
    // Google's errors have their type in `status`.
    type: type !== "" && type !== "error" ? type : typeof error.status === "string" ? nameOf(error.status) : "",
    message: messageOf(error),
    param: nameOf(error.param) || locationOf(error.detail) || (isFields(error.message) ? paramIn(error.message) : ""),
    other: Object.fromEntries(Object.entries(other).filter(([key, value]) => !readKeys.has(key) && value !== null)),
  };
}

/** A number, or its text, that can only be an HTTP status. */
function statusOf(error: Fields): number | null {
  for (const key of statusKeys) {
    const value = error[key];
    const number = typeof value === "string" && /^\s*\d{3}\s*$/.test(value) ? Number(value) : value;
    if (typeof number === "number" && Number.isInteger(number) && number >= 400 && number < 600) return number;
  }
  return null;
}

function firstName(error: Fields, keys: readonly string[]): string {
  for (const key of keys) {
    const name = nameOf(error[key]);
    if (name !== "") return name;
  }
  return "";
}

function nameOf(value: unknown): string {
  if (typeof value === "number") return String(value);
  return typeof value === "string" ? value.trim().slice(0, maxName) : "";
}

function messageOf(error: Fields): string {
  for (const key of messageKeys) {
    const text = textOf(error[key], maxDepth);
    if (text !== "") return isHtml(text) ? "" : text.slice(0, maxMessage);
  }
  return "";
}

/** The message in a text, or in a list or an object that has one; "" if there is none. */
function textOf(value: unknown, depth: number): string {
  if (typeof value === "string") return value.trim();
  if (depth === 0) return "";
  if (Array.isArray(value)) {
    const texts = value.slice(0, maxEntries).map((entry) => textOf(entry, depth - 1));
    return texts.filter((text) => text !== "").join("; ");
  }
  if (!isFields(value)) return "";
  const where = placeOf(value.loc);
  for (const key of [...messageKeys, "error"]) {
    const text = textOf(value[key], depth - 1);
    if (text !== "") return where === "" ? text : `${where}: ${text}`;
  }
  return "";
}

/** The location of FastAPI's first complaint: `[{"loc": ["body", "messages", 0], "msg": …}]`. */
function locationOf(detail: unknown): string {
  const first: unknown = Array.isArray(detail) ? detail[0] : detail;
  return isFields(first) ? placeOf(first.loc) : "";
}

function paramIn(message: Fields): string {
  return nameOf(message.param) || locationOf(message.detail);
}

function placeOf(loc: unknown): string {
  if (!Array.isArray(loc)) return "";
  const steps = loc.filter((step) => typeof step === "string" || typeof step === "number").slice(0, maxEntries);
  return steps
    .slice(steps[0] === "body" ? 1 : 0)
    .join(".")
    .slice(0, maxName);
}

/** The message in a text that is not JSON. */
function cutText(text: string): string {
  // Compressed data, or another charset, is not readable text.
  if (isHtml(text) || text.includes("\ufffd")) return "";
  return text.trim().slice(0, maxText);
}

function isHtml(text: string): boolean {
  return text.trimStart().startsWith("<") || /<(?:!doctype|html|head|body|title|center|h1)\b/i.test(text);
}
