import { textString, textUnder } from "../../lib/json-text.ts";
import { formOf, isFields, isKeepAlive, type EventKind, type EventParser, type Fields } from "./event-parser.ts";
import type { ReportedError, ReportedUsage } from "./reported.ts";
import { emptyError, findError } from "./reported-error.ts";
import type { EventRole } from "./response-reader.ts";
import { standingOf, type Standing } from "./response-rules.ts";
import type { UnfoldedEvent } from "./unfold.ts";
import { detail, readUsage } from "./usage.ts";

/** Text, reasoning, refusals and tool arguments all come as `delta`; events that repeat it whole don't count. */
const eventText = textUnder({ delta: textString });
/** A shorter event without a delta may be one that only keeps the connection alive. */
const shortEvent = 200;

/**
 * Parses the events of OpenAI's Responses API. A response ends with an event of its own: `response.completed`,
 * `response.incomplete` or `response.failed`, the first two with the usage. There is no [DONE].
 */
export class ResponsesParser implements EventParser {
  readonly text = eventText;
  usage: ReportedUsage | null = null;
  readonly prompt = null;
  error: ReportedError | null = null;
  finishing = false;
  standing: Standing = "unfinished";
  readonly choices = 1;
  /** Whether an event has had the form of this API. */
  #hasBegun = false;

  mayHold(json: string): boolean {
    // The beginning and the end have the whole `response`.
    if (json.includes('response"') || json.includes('error"')) return true;
    return json.length < shortEvent && !json.includes('delta"');
  }

  read(event: Fields): EventKind {
    const { type, response } = event;
    this.error = findError(event);
    if (this.error !== null) return "error";
    if (!this.#hasBegun) {
      const form = formOf(event);
      if (form !== null && form !== "responses") return "foreign";
      this.#hasBegun = form !== null;
    }
    const whole = isFields(response) ? response : {};
    this.usage = readUsage(whole.usage) ?? this.usage;
    if (type === "response.failed" || type === "response.cancelled" || whole.status === "failed") {
      this.error = findError(whole) ?? emptyError;
      return "error";
    }
    if (type === "response.completed" || type === "response.incomplete") {
      const reason = type === "response.incomplete" ? detail(whole.incomplete_details, "reason") : null;
      this.standing = standingOf(reason ?? type);
      this.finishing = true;
      return "last";
    }
    return isKeepAlive(event) ? "aside" : "content";
  }
}

type Step = readonly [type: string, fields: Fields];

/** The events of a response that came whole. Clients lose what was not opened, streamed and closed. */
export function* unfoldResponse(response: Fields): Generator<UnfoldedEvent> {
  const { output, status = "completed" } = response;
  if (!Array.isArray(output)) return;
  let sequence_number = 0;
  const event = ([name, fields]: Step, role: EventRole = "part"): UnfoldedEvent => {
    const type = `response.${name}`;
    return { parsed: { type, sequence_number: sequence_number++, ...fields }, role, name: type };
  };
  yield event(["created", { response: { ...response, status: "in_progress", output: [], usage: null } }]);
  for (const [output_index, item] of (output as unknown[]).filter(isFields).entries()) {
    for (const [name, fields] of unfoldItem(item)) yield event([name, { output_index, ...fields }]);
  }
  if (status === "completed" || status === "incomplete") yield event([status, { response }], "last");
}

function* unfoldItem(item: Fields): Generator<Step> {
  const { id: item_id } = item;
  const begun = { ...item, ...(item.status === undefined ? {} : { status: "in_progress" }) };
  switch (item.type) {
    case "function_call":
      yield ["output_item.added", { item: { ...begun, arguments: "" } }];
      yield ["function_call_arguments.delta", { item_id, delta: item.arguments }];
      yield ["function_call_arguments.done", { item_id, name: item.name, arguments: item.arguments }];
      break;
    case "custom_tool_call":
      yield ["output_item.added", { item: { ...begun, input: "" } }];
      yield ["custom_tool_call_input.delta", { item_id, delta: item.input }];
      yield ["custom_tool_call_input.done", { item_id, input: item.input }];
      break;
    case "message":
    case "reasoning": {
      const summary = partsOf(item.summary);
      const content = partsOf(item.content);
      const emptied = {
        ...(item.summary === undefined ? {} : { summary: [] }),
        ...(item.content === undefined ? {} : { content: [] }),
      };
      yield ["output_item.added", { item: { ...begun, ...emptied } }];
      for (const [at, part] of summary.entries()) {
        const where = { item_id, summary_index: at };
        yield* unfoldPart("reasoning_summary_part", "reasoning_summary_text", "text", part, where);
      }
      for (const [at, part] of content.entries()) yield* unfoldContent(part, { item_id, content_index: at });
      break;
    }
    default:
      yield ["output_item.added", { item }];
  }
  yield ["output_item.done", { item }];
}

function unfoldContent(part: Fields, where: Fields): Iterable<Step> {
  const { type } = part;
  if (type === "refusal") return unfoldPart("content_part", "refusal", "refusal", part, where);
  const name = type === "reasoning_text" ? "reasoning_text" : "output_text";
  return unfoldPart("content_part", name, "text", part, where);
}

function* unfoldPart(opens: string, name: string, key: string, part: Fields, where: Fields): Generator<Step> {
  const text = part[key];
  yield [`${opens}.added`, { ...where, part: { ...part, [key]: "" } }];
  const logprobs = name === "output_text" ? { logprobs: [] } : {};
  yield [`${name}.delta`, { ...where, delta: text, ...logprobs }];
  yield [`${name}.done`, { ...where, [key]: text, ...logprobs }];
  yield [`${opens}.done`, { ...where, part }];
}

function partsOf(list: unknown): readonly Fields[] {
  return Array.isArray(list) ? (list as unknown[]).filter(isFields) : [];
}
