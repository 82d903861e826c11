import type { ReadableSpan, SpanExporter } from "@opentelemetry/sdk-trace-base";
import { expect, test } from "vitest";
import { createSpanQueue } from "../../src/telemetry/span-queue.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { eventually } from "../support/eventually.ts";

type Export = SpanExporter["export"];
type Result = Parameters<Parameters<Export>[1]>[0];
const resultOf = (code: number) => ({ code, error: new Error("503") }) as unknown as Result;
const good = resultOf(0);
const bad = resultOf(1);
const ok: Export = (_spans, onResult) => {
  onResult(good);
};

function open(exportSpans: Export, maxQueued = 1000) {
  const batches: number[] = [];
  const log = createCapturedLog();
  const exporter: SpanExporter = {
    export(spans, onResult) {
      batches.push(spans.length);
      exportSpans(spans, onResult);
    },
    shutdown: () => Promise.reject(new Error("the collector is away")),
  };
  const queue = createSpanQueue({ exporter, maxQueued, delayMs: 5, closeMs: 20, log });
  return {
    queue,
    batches,
    log,
    end(count: number) {
      for (let i = 0; i < count; i++) queue.onEnd({} as ReadableSpan);
    },
  };
}

test("spans go out in batches, one at a time, without being asked for", async () => {
  let running = 0;
  let most = 0;
  const { queue, batches, end } = open((_spans, onResult) => {
    most = Math.max(most, ++running);
    setImmediate(() => {
      running--;
      onResult(good);
    });
  });
  end(200);
  await eventually(() => {
    expect(queue.counts()).toEqual({ queued: 0, exported: 200, dropped: { queue_full: 0, export_failed: 0 } });
  });
  expect(Math.max(...batches)).toBeLessThanOrEqual(64);
  expect(most).toBe(1);
});

test("a single span does not wait for others for long", async () => {
  const { queue, end } = open(ok);
  end(1);
  await eventually(() => {
    expect(queue.counts().exported).toBe(1);
  });
});

test("what finds the queue full is dropped and counted; so is what can't be exported", async () => {
  const { queue, end, log } = open((_spans, onResult) => {
    onResult(bad);
  }, 100);
  end(150);
  expect(queue.counts()).toMatchObject({ queued: 100, dropped: { queue_full: 50 } });
  await eventually(() => {
    expect(queue.counts()).toMatchObject({ queued: 0, exported: 0, dropped: { queue_full: 50, export_failed: 100 } });
  });
  expect(log.lines.filter(({ message }) => message === "the collector takes no traces")).toHaveLength(1);
});

test("an exporter that throws, or answers twice, does no harm", async () => {
  const { queue, end } = open((_spans, onResult) => {
    onResult(good);
    throw new Error("broken");
  });
  end(1);
  await eventually(() => {
    expect(queue.counts()).toMatchObject({ queued: 0, exported: 1 });
  });
});

test("closing exports what is queued; one that hangs is not waited for, and its spans are counted", async () => {
  const taking = open(ok);
  taking.end(150);
  await taking.queue.shutdown();
  expect(taking.queue.counts()).toMatchObject({ queued: 0, exported: 150 });

  const hanging = open(() => undefined);
  hanging.end(150);
  await hanging.queue.shutdown();
  hanging.end(1);
  // One batch may still arrive.
  expect(hanging.queue.counts()).toMatchObject({ queued: 64, exported: 0, dropped: { queue_full: 87 } });
});
