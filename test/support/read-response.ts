import type { ApiName } from "../../src/providers/apis.ts";
import { createReader } from "../../src/providers/stream/response-body.ts";
import type { EventRole } from "../../src/providers/stream/response-reader.ts";
import type { ReportedUsage } from "../../src/providers/stream/reported.ts";
import { testProvider } from "./provider.ts";

/** What a reader makes of an answer. */
export interface ReadResponse {
  /** The fault's kind; null where the answer is complete. */
  readonly fault: string | null;
  readonly usage: ReportedUsage | null;
  /** The events that it hands on, as they came. */
  readonly seen: readonly string[];
  readonly outputTokens: number;
  /** How long silence might have lasted before the end. */
  readonly graceMs: number | null;
}

const provider = testProvider("read");

interface ReadOptions {
  readonly collects?: boolean;
  /** Choices that were asked for. */
  readonly choices?: number;
}

/** Reads an answer whose events come each in a read of the network, up to a clean end. */
export function readResponse(
  api: Exclude<ApiName, "embeddings">,
  reads: readonly (string | Buffer)[],
  { collects = false, choices = 1 }: ReadOptions = {},
  onRole: (role: EventRole) => unknown = () => undefined,
): ReadResponse {
  const seen: string[] = [];
  const sink = {
    onEvent(event: Buffer, start: number, end: number, _textBytes: number, role: EventRole) {
      seen.push(event.toString("utf8", start, end));
      onRole(role);
    },
    onBatch: () => undefined,
    onEnd: () => undefined,
  };
  const reader = createReader(api, collects, provider, sink, choices);
  // A copy for each: what the network brings is not one buffer.
  for (const read of reads) reader.push(Buffer.from(read as string));
  const { graceMs } = reader;
  const fault = reader.end()?.facts.kind ?? null;
  return { fault, usage: reader.usage, seen, outputTokens: reader.outputTokens, graceMs };
}

/** An event with this JSON. */
export function event(data: unknown): string {
  return `data: ${JSON.stringify(data)}\n\n`;
}
