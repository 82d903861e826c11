import type { Clock } from "../lib/clock.ts";
import type { Emit } from "./catalogue.ts";

/** What a sink has lost since the start, by reason. */
export interface SinkLosses {
  readonly sink: string;
  readonly lost: Readonly<Record<string, number>>;
}

/** At most one event for each sink in so many ms: what is lost comes in floods. */
const everyMs = 60_000;

/**
 * Emits `events.lost` for each sink that has lost events, once a minute. The event must go to no sink that it may be about:
 * it would be lost there, and cause the next one.
 */
export function createLossWatch(options: {
  readonly losses: () => readonly SinkLosses[];
  readonly emit: Emit;
  readonly clock: Clock;
}): { check(): void; close(): void } {
  const { losses, emit, clock } = options;
  const reported = new Map<string, number>();

  function check(): void {
    for (const { sink, lost } of losses()) {
      const reasons: Record<string, number> = {};
      let count = 0;
      for (const [reason, total] of Object.entries(lost)) {
        const more = total - (reported.get(`${sink} ${reason}`) ?? 0);
        reported.set(`${sink} ${reason}`, total);
        if (more <= 0) continue;
        reasons[reason] = more;
        count += more;
      }
      if (count > 0) emit({ type: "events.lost", at: clock.now(), traceId: "", ip: "", sink, count, reasons });
    }
  }

  const timer = setInterval(check, everyMs).unref();
  return {
    check,
    close() {
      clearInterval(timer);
    },
  };
}
