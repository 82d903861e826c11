import type { Config } from "../config/schema.ts";
import type { Log } from "../lib/log.ts";
import { passThroughTracing, type Tracing } from "./tracing.ts";

interface OpenTracingOptions {
  readonly config: Config["telemetry"];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly version: string;
  /** The name of this process among those that share its state. */
  readonly node: string;
  readonly log: Log;
}

/**
 * Traces requests if there is a collector: `telemetry.otlp_endpoint`, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or
 * OTEL_EXPORTER_OTLP_ENDPOINT. If not, no part of OpenTelemetry is loaded. Rejects if one of them is no URL.
 */
export async function openTracing({ config, env, version, node, log }: OpenTracingOptions): Promise<Tracing> {
  const url = endpointOf(config.otlp_endpoint, env);
  if (url === null || env.OTEL_SDK_DISABLED === "true") return passThroughTracing;
  // The config is checked by its schema. The value is not repeated: a URL may hold a password.
  if (!isHttpUrl(url))
    throw new Error(
      "environment OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: expected an http or https URL, such as http://localhost:4318",
    );
  const { createOtelTracing } = await import("./otel-tracing.ts");
  return createOtelTracing({
    url,
    headers: headersIn(env[config.otlp_headers_env] ?? ""),
    sampleRatio: config.sample_ratio,
    captureContent: config.capture_content,
    maxQueued: config.max_queued_spans,
    resource: {
      "service.name": env.OTEL_SERVICE_NAME ?? "deepseek-proxy",
      "service.version": version,
      "service.instance.id": node,
    },
    log,
  });
}

/** Null if there is none. The variable for traces alone is taken as it is, as OpenTelemetry has it. */
function endpointOf(configured: string | undefined, env: OpenTracingOptions["env"]): string | null {
  const base =
    configured ?? (nonEmpty(env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) ? null : env.OTEL_EXPORTER_OTLP_ENDPOINT);
  if (base === null) return env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT ?? null;
  if (!nonEmpty(base)) return null;
  const bare = base.endsWith("/") ? base.slice(0, -1) : base;
  return bare.endsWith("/v1/traces") ? bare : `${bare}/v1/traces`;
}

function isHttpUrl(text: string): boolean {
  return URL.canParse(text) && /^https?:$/.test(new URL(text).protocol);
}

function nonEmpty(text: string | undefined): text is string {
  return text !== undefined && text.trim() !== "";
}

/** `name=value,name=value`, URL-encoded. What can't be read is left out: it may be a secret, so it is not named. */
function headersIn(text: string): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const pair of text.split(",")) {
    const at = pair.indexOf("=");
    const name = pair.slice(0, at).trim().toLowerCase();
    if (at === -1 || !/^[!#$%&'*+.^_`|~0-9a-z-]+$/.test(name)) continue;
    try {
      headers[name] = decodeURIComponent(pair.slice(at + 1).trim());
    } catch {
      continue;
    }
  }
  return headers;
}
