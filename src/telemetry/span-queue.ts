import type { SpanProcessor, SpanExporter, ReadableSpan } from "@opentelemetry/sdk-trace-base";
import type { Log } from "../lib/log.ts";
import type { SpanCounts } from "./tracing.ts";

interface SpanQueueOptions {
  readonly exporter: SpanExporter;
  /** Most spans that wait; more are dropped. */
  readonly maxQueued: number;
  /** How long the first span of a batch waits for others, in ms. */
  readonly delayMs: number;
  /** How long close() may take, in ms. */
  readonly closeMs: number;
  readonly log: Log;
}

export interface SpanQueue extends SpanProcessor {
  counts(): SpanCounts;
}

/** A batch is written as JSON in one go: this many spans hold up the event loop for about a ms. */
const batchSize = 64;
/** A collector that is away is mentioned in the log once in so many ms. */
const logEveryMs = 60_000;

/**
 * Spans on their way to the collector: a bounded queue, one export at a time. Requests never wait for it. The SDK's
 * own processor does the same, but does not count what it drops.
 */
export function createSpanQueue({ exporter, maxQueued, delayMs, closeMs, log }: SpanQueueOptions): SpanQueue {
  let queue: ReadableSpan[] = [];
  let exporting = 0;
  let exported = 0;
  const dropped = { queue_full: 0, export_failed: 0 };
  let timer: NodeJS.Timeout | undefined;
  let loggedAt = -Infinity;
  let onIdle: (() => void) | null = null;
  let closed = false;

  function exportNext(): void {
    clearTimeout(timer);
    timer = undefined;
    if (exporting > 0) return;
    if (queue.length === 0) {
      onIdle?.();
      return;
    }
    const batch = queue.slice(0, batchSize);
    queue = queue.slice(batchSize);
    exporting = batch.length;
    let done = false;
    const onResult = (error: unknown): void => {
      if (done) return;
      done = true;
      exporting = 0;
      if (error === undefined) exported += batch.length;
      else noteFailure(batch.length, error);
      // With a macrotask in between, so that requests get their turn.
      if (queue.length >= batchSize || onIdle !== null) setImmediate(exportNext);
      else schedule();
    };
    try {
      exporter.export(batch, ({ code, error }: { readonly code: number; readonly error?: Error }) => {
        onResult(code === 0 ? undefined : (error ?? new Error("the collector refused the spans")));
      });
    } catch (error) {
      onResult(error);
    }
  }

  function noteFailure(spans: number, error: unknown): void {
    dropped.export_failed += spans;
    const now = performance.now();
    if (now - loggedAt < logEveryMs) return;
    loggedAt = now;
    // Only the message: the error of the exporter contains the whole response of the collector.
    const problem = error instanceof Error ? error.message.slice(0, 200) : "unknown";
    log.warn({ event: "spans_lost", problem, lost: dropped.export_failed }, "the collector takes no traces");
  }

  function schedule(): void {
    if (queue.length > 0 && timer === undefined && !closed) timer = setTimeout(exportNext, delayMs).unref();
  }

  return {
    onStart() {
      // Only what has ended is exported.
    },
    onEnd(span) {
      if (queue.length >= maxQueued || closed) {
        dropped.queue_full++;
        return;
      }
      queue.push(span);
      if (queue.length === batchSize && exporting === 0) setImmediate(exportNext);
      else schedule();
    },
    counts: () => ({ queued: queue.length + exporting, exported, dropped: { ...dropped } }),
    forceFlush: () => Promise.resolve(),
    async shutdown() {
      let late: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        onIdle = resolve;
        late = setTimeout(resolve, closeMs);
        exportNext();
      });
      clearTimeout(late);
      closed = true;
      dropped.queue_full += queue.length;
      queue = [];
      exporter.shutdown().catch(ignore);
    },
  };
}

function ignore(): void {
  // Whatever is wrong with the collector, the process ends.
}
