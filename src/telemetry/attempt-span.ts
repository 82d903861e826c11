import {
  ROOT_CONTEXT,
  type Attributes,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace,
  type Tracer,
} from "@opentelemetry/api";
import { traceHeaders } from "../lib/trace-context.ts";
import type { ApiName } from "../providers/apis.ts";
import type { AttemptEnd, AttemptTrace } from "../providers/attempt-trace.ts";
import type { Provider, UpstreamRequest } from "../providers/provider.ts";
import { OutputText } from "./content.ts";

interface AttemptSpanOptions {
  readonly tracer: Tracer;
  readonly parent: Span;
  /** From 1. */
  readonly attempt: number;
  readonly provider: Provider;
  readonly request: UpstreamRequest;
  /** The provider's name for it. */
  readonly model: string;
  /** Of its request. */
  readonly attributes: Attributes;
  readonly captureContent: boolean;
}

type Fields = Readonly<Record<string, unknown>>;

const operations: Readonly<Partial<Record<ApiName, string>>> = {
  completions: "text_completion",
  embeddings: "embeddings",
};
/** Most finish reasons of one response, and characters of a text of the provider. */
const maxReasons = 100;
const maxText = 128;

/**
 * The span of one attempt, by OpenTelemetry's conventions for generative AI, which Langfuse reads as well. What begins
 * with `llm`, `input`, `output` and `openinference` is read by Phoenix.
 */
export class AttemptSpan implements AttemptTrace {
  readonly headers: Readonly<Record<string, string>>;
  readonly #span: Span;
  readonly #parent: Span;
  readonly #output: OutputText | null;
  /** Of the response, as its provider names them; "" while they are unknown. */
  #model = "";
  #id = "";
  readonly #finishReasons: string[] = [];

  constructor(options: AttemptSpanOptions) {
    const { tracer, parent, attempt, provider, request, model, attributes, captureContent } = options;
    const operation = operations[request.api] ?? "chat";
    const { hostname, port, protocol } = new URL(provider.origin);
    this.#parent = parent;
    this.#span = tracer.startSpan(
      `${operation} ${model}`,
      {
        kind: SpanKind.CLIENT,
        attributes: {
          ...attributes,
          "gen_ai.operation.name": operation,
          "gen_ai.provider.name": provider.kind.name,
          "gen_ai.request.model": model,
          "server.address": hostname,
          "server.port": port === "" ? (protocol === "https:" ? 443 : 80) : Number(port),
          "openinference.span.kind": operation === "embeddings" ? "EMBEDDING" : "LLM",
          "llm.model_name": model,
          "llm.provider": provider.kind.name,
          "proxy.provider": provider.name,
          "proxy.attempt": attempt,
        },
      },
      trace.setSpan(ROOT_CONTEXT, parent),
    );
    const { traceId, spanId, traceFlags, traceState } = this.#span.spanContext();
    this.headers = traceHeaders({ traceId, spanId, flags: traceFlags, state: traceState?.serialize() ?? "" });
    this.#output = captureContent && this.#span.isRecording() ? new OutputText() : null;
  }

  firstEvent(ms: number): void {
    if (!this.#span.isRecording()) return;
    this.#span.addEvent("gen_ai.first_token");
    this.#parent.addEvent("gen_ai.first_token");
    this.#span.setAttributes({
      "gen_ai.response.time_to_first_chunk": ms / 1000,
      "langfuse.observation.completion_start_time": new Date().toISOString(),
    });
  }

  event(bytes: Buffer, start: number, end: number, parsed: unknown): void {
    if (!this.#span.isRecording()) return;
    if (parsed !== undefined) this.#readFacts(parsed);
    if (this.#output === null) return;
    const event = parsed ?? parseEvent(bytes, start, end);
    this.#output.add(event);
  }

  end({ error, cancelled, status, report }: AttemptEnd): void {
    const span = this.#span;
    if (span.isRecording()) {
      if (status !== 0) span.setAttribute("http.response.status_code", status);
      if (cancelled) span.setAttribute("proxy.cancelled", true);
      this.#describeResponse();
      if (report.usage !== null) this.#describeUsage(report.usage);
      // The kind alone: the message may quote the prompt.
      if (error !== null) span.setAttribute("error.type", error.facts.kind).setStatus({ code: SpanStatusCode.ERROR });
    }
    span.end();
  }

  #describeResponse(): void {
    const reasons = this.#finishReasons.filter((reason) => reason !== "");
    this.#span.setAttributes({
      ...(this.#model === "" ? {} : { "gen_ai.response.model": this.#model }),
      ...(this.#id === "" ? {} : { "gen_ai.response.id": this.#id }),
      ...(reasons.length === 0 ? {} : { "gen_ai.response.finish_reasons": reasons }),
    });
    if (this.#output === null) return;
    const messages = this.#output.messages(this.#finishReasons);
    this.#span.setAttributes({
      "gen_ai.output.messages": messages,
      "output.value": messages,
      "output.mime_type": "application/json",
    });
  }

  #describeUsage({ input, cached, output, reasoning }: NonNullable<AttemptEnd["report"]["usage"]>): void {
    this.#span.setAttributes({
      "gen_ai.usage.input_tokens": input,
      "gen_ai.usage.output_tokens": output,
      "gen_ai.usage.cache_read.input_tokens": cached,
      "gen_ai.usage.reasoning.output_tokens": reasoning,
      "llm.token_count.prompt": input,
      "llm.token_count.completion": output,
      "llm.token_count.total": input + output,
    });
  }

  /** From an event of any API, or from a response in one piece. */
  #readFacts(event: unknown): void {
    if (!isFields(event)) return;
    const { choices, delta, message, response } = event;
    const whole = isFields(message) ? message : isFields(response) ? response : event;
    this.#model ||= textOf(whole.model);
    this.#id ||= textOf(whole.id);
    if (Array.isArray(choices)) {
      for (const [at, choice] of (choices as unknown[]).entries()) {
        if (isFields(choice)) this.#noteReason(choice.finish_reason, choice.index ?? at);
      }
    } else if (isFields(delta)) this.#noteReason(delta.stop_reason, 0);
    else if (event.type === "response.completed") this.#noteReason("stop", 0);
    else if (event.type === "response.incomplete" && isFields(whole.incomplete_details)) {
      this.#noteReason(whole.incomplete_details.reason, 0);
    }
  }

  #noteReason(reason: unknown, index: unknown): void {
    if (typeof reason !== "string" || reason === "" || typeof index !== "number") return;
    if (!Number.isSafeInteger(index) || index < 0 || index >= maxReasons) return;
    while (this.#finishReasons.length < index) this.#finishReasons.push("");
    this.#finishReasons[index] = reason.slice(0, maxText);
  }
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value.slice(0, maxText) : "";
}

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The JSON of an event that nothing else had to parse; undefined if it has another framing than nearly all have. */
function parseEvent(bytes: Buffer, start: number, end: number): unknown {
  const from = bytes.indexOf("data:", start);
  if (from === -1 || from >= end) return undefined;
  try {
    return JSON.parse(bytes.toString("utf8", from + "data:".length, end));
  } catch {
    return undefined;
  }
}
