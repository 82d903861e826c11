import {
  createTraceState,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace,
  TraceFlags,
  type Tracer,
} from "@opentelemetry/api";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { BasicTracerProvider, ParentBasedSampler, TraceIdRatioBasedSampler } from "@opentelemetry/sdk-trace-base";
import type { ChatFinished } from "../events/catalogue.ts";
import type { ParsedRequest } from "../gateway/formats/api-format.ts";
import type { JsonObject } from "../lib/json-object.ts";
import type { Log } from "../lib/log.ts";
import { scrubSecrets } from "../lib/secret-text.ts";
import { parseTraceContext } from "../lib/trace-context.ts";
import type { AttemptTrace } from "../providers/attempt-trace.ts";
import type { Provider, UpstreamRequest } from "../providers/provider.ts";
import { AttemptSpan } from "./attempt-span.ts";
import { inputMessages } from "./content.ts";
import { createSpanQueue } from "./span-queue.ts";
import type { ArrivingRequest, ServerTrace, Tracing } from "./tracing.ts";

export interface OtelTracingOptions {
  /** Where spans are posted. */
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly sampleRatio: number;
  readonly captureContent: boolean;
  readonly maxQueued: number;
  /** What the spans say about this process: `service.name` and the like. */
  readonly resource: Readonly<Record<string, string>>;
  readonly log: Log;
}

/** How long a batch waits for more spans, and how long one export and the last ones may take; ms. */
const delayMs = 1000;
const exportMs = 10_000;
const closeMs = 3000;
/** Most characters of a text of the client in a span: its path, its model. */
const maxText = 200;

/** Routes that are called every few seconds by machines, and say nothing. */
const untraced: ReadonlySet<string> = new Set(["/livez", "/readyz", "/healthz", "/metrics"]);

/**
 * Traces requests by the conventions of OpenTelemetry and exports them by OTLP. This file is loaded only where that is
 * configured: the SDK takes some MB and 100 ms of the start.
 */
export function createOtelTracing(options: OtelTracingOptions): Tracing {
  const { url, headers, sampleRatio, captureContent, maxQueued, resource, log } = options;
  const exporter = new OTLPTraceExporter({
    url,
    headers: { ...headers },
    timeoutMillis: exportMs,
    concurrencyLimit: 1,
  });
  const queue = createSpanQueue({ exporter, maxQueued, delayMs, closeMs, log });
  const provider = new BasicTracerProvider({
    resource: resourceFromAttributes({ ...resource }),
    sampler: new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(sampleRatio) }),
    spanProcessors: [queue],
  });
  const tracer = provider.getTracer("deepseek-proxy");
  return {
    begin(request) {
      return untraced.has(request.route ?? "") ? null : new RequestSpan(tracer, request, captureContent);
    },
    records: true,
    counts: () => queue.counts(),
    close: () => queue.shutdown(),
  };
}

/** The span of a request, and the parent of those of its attempts. */
class RequestSpan implements ServerTrace {
  readonly traceId: string;
  readonly #tracer: Tracer;
  readonly #span: Span;
  readonly #captureContent: boolean;
  #attempts = 0;
  #failed = false;
  #stream = false;
  /** Of the request, for the spans of its attempts. */
  #parameters: Record<string, string | number> = {};

  constructor(tracer: Tracer, request: ArrivingRequest, captureContent: boolean) {
    this.#tracer = tracer;
    this.#captureContent = captureContent;
    const { method, route, headers } = request;
    const agent = headers["user-agent"];
    this.#span = tracer.startSpan(
      route === undefined ? method : `${method} ${route}`,
      {
        kind: SpanKind.SERVER,
        attributes: {
          "http.request.method": method,
          "url.scheme": "http",
          "url.path": scrubSecrets(request.path.slice(0, maxText)),
          "client.address": request.ip,
          "proxy.request_id": request.requestId,
          ...(route === undefined ? {} : { "http.route": route }),
          ...(agent === undefined ? {} : { "user_agent.original": scrubSecrets(String(agent).slice(0, maxText)) }),
        },
      },
      parentOf(request),
    );
    this.traceId = this.#span.spanContext().traceId;
  }

  admitted({ maxTokens, stream }: ParsedRequest, { value }: JsonObject): void {
    if (!this.#span.isRecording()) return;
    const given: Record<string, string | number> = {};
    if (maxTokens !== null) given["gen_ai.request.max_tokens"] = maxTokens;
    for (const [name, key] of numericParameters) {
      const parameter = value[key];
      if (typeof parameter === "number") given[`gen_ai.request.${name}`] = parameter;
    }
    if (this.#captureContent) {
      const messages = inputMessages(value);
      given["gen_ai.input.messages"] = messages;
      given["input.value"] = messages;
      given["input.mime_type"] = "application/json";
    }
    this.#parameters = given;
    this.#stream = stream;
  }

  startAttempt(provider: Provider, request: UpstreamRequest, model: string): AttemptTrace {
    this.#attempts++;
    if (this.#attempts > 1) {
      this.#span.addEvent("retry", { "proxy.attempt": this.#attempts, "proxy.provider": provider.name });
    }
    return new AttemptSpan({
      tracer: this.#tracer,
      parent: this.#span,
      attempt: this.#attempts,
      provider,
      request,
      model: model.slice(0, maxText),
      attributes: { ...this.#parameters, "gen_ai.request.stream": this.#stream },
      captureContent: this.#captureContent,
    });
  }

  finished(event: ChatFinished): void {
    if (!this.#span.isRecording()) return;
    // Nothing of gen_ai here: readers would count the tokens of the attempts twice.
    this.#span.setAttributes({
      "proxy.api": event.api,
      "proxy.model": event.model.slice(0, maxText),
      "proxy.provider": event.provider,
      "proxy.group": event.group,
      "proxy.key_id": event.keyId,
      "proxy.outcome": event.outcome,
      "proxy.code": event.code,
      "proxy.queue_seconds": event.queueMs / 1000,
      "proxy.retries": event.retries,
      "proxy.cost": event.cost / 1e9,
      "proxy.currency": event.currency,
      "proxy.estimated": event.estimated,
    });
    if (event.outcome === "upstream_failed") this.#fail(event.code);
  }

  responded(status: number, user: string | null): void {
    if (user !== null) this.#span.setAttribute("user.id", user);
    this.#span.setAttribute("http.response.status_code", status);
    if (status >= 500) this.#fail(String(status));
    this.#span.end();
  }

  /** The first reason counts. */
  #fail(type: string): void {
    if (!this.#failed) this.#span.setAttribute("error.type", type).setStatus({ code: SpanStatusCode.ERROR });
    this.#failed = true;
  }
}

/** Of requests of all APIs: the names in the conventions, and those of the fields. */
const numericParameters = [
  ["temperature", "temperature"],
  ["top_p", "top_p"],
  ["top_k", "top_k"],
  ["frequency_penalty", "frequency_penalty"],
  ["presence_penalty", "presence_penalty"],
  ["seed", "seed"],
  ["choice.count", "n"],
] as const;

function parentOf({ headers }: ArrivingRequest) {
  const parent = parseTraceContext(headers);
  if (parent === null) return ROOT_CONTEXT;
  const { traceId, spanId, flags, state } = parent;
  return trace.setSpanContext(ROOT_CONTEXT, {
    traceId,
    spanId,
    isRemote: true,
    traceFlags: flags & TraceFlags.SAMPLED,
    ...(state === "" ? {} : { traceState: createTraceState(state) }),
  });
}
