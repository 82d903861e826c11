import { z } from "zod";

const endpoint = z
  .string()
  .refine((text) => isHttpUrl(text), "expected an http or https URL, such as http://localhost:4318");

export const telemetrySection = z.strictObject({
  otlp_endpoint: endpoint
    .optional()
    .describe(
      "Where traces go, by OTLP over HTTP: the base URL of a collector, to which `/v1/traces` is added unless it ends in that. Absent: OTEL_EXPORTER_OTLP_ENDPOINT decides; without either nothing is traced, and traceparent is only passed on.",
    ),
  otlp_headers_env: z
    .string()
    .min(1)
    .default("OTEL_EXPORTER_OTLP_HEADERS")
    .describe(
      "Environment variable of headers for it, such as `authorization=Basic%20...,x-team=a`; values are URL-encoded.",
    ),
  sample_ratio: z
    .number()
    .min(0)
    .max(1)
    .default(1)
    .describe("Share of the requests that are traced, where the caller has not decided it by its traceparent."),
  capture_content: z
    .boolean()
    .default(false)
    .describe(
      "Whether spans contain prompts and responses, 16 KiB of each at most, with anything that looks like a secret redacted. Everyone who can read the traces can then read them.",
    ),
  max_queued_spans: z
    .int()
    .min(128)
    .max(100_000)
    .default(4096)
    .describe("Spans that wait for the collector; more are dropped and counted."),
});

function isHttpUrl(text: string): boolean {
  return URL.canParse(text) && /^https?:$/.test(new URL(text).protocol);
}
