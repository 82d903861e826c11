import { expect, onTestFinished, test, vi } from "vitest";
import type { ProxyEvent } from "../../src/events/catalogue.ts";
import { createLossWatch, type SinkLosses } from "../../src/events/loss-watch.ts";
import { createManualClock } from "../support/manual-clock.ts";

test("what each sink has lost is one event a minute, with what has been added since the last", () => {
  vi.useFakeTimers();
  onTestFinished(() => {
    vi.useRealTimers();
  });
  let losses: readonly SinkLosses[] = [
    { sink: "kafka", lost: { spool_full: 0 } },
    { sink: "webhook", lost: {} },
  ];
  const emitted: ProxyEvent[] = [];
  const watch = createLossWatch({
    losses: () => losses,
    emit: (event) => void emitted.push(event),
    clock: createManualClock(1000),
  });
  vi.advanceTimersByTime(60_000);
  expect(emitted).toEqual([]);
  losses = [
    { sink: "kafka", lost: { spool_full: 7, damaged: 1 } },
    { sink: "webhook", lost: { queue_full: 2 } },
  ];
  vi.advanceTimersByTime(59_999);
  expect(emitted).toEqual([]);
  vi.advanceTimersByTime(1);
  const base = { type: "events.lost", at: 1000, traceId: "", ip: "" };
  expect(emitted).toEqual([
    { ...base, sink: "kafka", count: 8, reasons: { spool_full: 7, damaged: 1 } },
    { ...base, sink: "webhook", count: 2, reasons: { queue_full: 2 } },
  ]);
  emitted.length = 0;
  // A webhook that is made anew counts from 0.
  losses = [
    { sink: "kafka", lost: { spool_full: 9, damaged: 1 } },
    { sink: "webhook", lost: { queue_full: 0 } },
  ];
  vi.advanceTimersByTime(120_000);
  expect(emitted).toEqual([{ ...base, sink: "kafka", count: 2, reasons: { spool_full: 2 } }]);
  watch.close();
  losses = [];
  expect(vi.getTimerCount()).toBe(0);
});
