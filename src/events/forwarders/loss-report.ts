import type { Log } from "../../lib/log.ts";
import type { LossReason } from "../spool/spool-segment.ts";

/** Logs lost events, at most once in some seconds for each sink and reason. */
export interface LossReport {
  readonly add: (sink: string, reason: LossReason, count: number) => void;
  /** Logs what has not been logged yet. */
  close(): void;
}

const everyMs = 5000;

/** Losses come in floods: each event of a full disk is one. */
export function createLossReport(log: Log): LossReport {
  const waiting = new Map<string, { readonly sink: string; readonly reason: LossReason; events: number }>();
  let timer: NodeJS.Timeout | undefined;

  function report(): void {
    timer = undefined;
    for (const facts of waiting.values()) {
      log.error({ event: "events.lost", ...facts }, "events will not reach a sink");
    }
    waiting.clear();
  }

  return {
    add(sink, reason, count) {
      const known = waiting.get(`${sink} ${reason}`);
      if (known === undefined) waiting.set(`${sink} ${reason}`, { sink, reason, events: count });
      else known.events += count;
      timer ??= setTimeout(report, everyMs).unref();
    },
    close() {
      clearTimeout(timer);
      report();
    },
  };
}
