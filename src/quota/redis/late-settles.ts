import type { Log } from "../../lib/log.ts";
import type { HoldPart } from "./hold-calls.ts";
import type { LateSettlement } from "./redis-hold.ts";

/** Final charges that Redis has not accepted, as far as is known. They are tried again until it does. */
export interface LateSettles {
  keep(late: LateSettlement): void;
  count(): number;
  /** Tries once more. Rejects if some are lost. */
  close(): Promise<void>;
}

export interface LateSettlesOptions {
  /** Monotonic ms. */
  readonly monotonic: () => number;
  readonly log: Log;
  /** Called with the parts of each that is settled or lost. */
  readonly onEnd: (parts: readonly HoldPart[]) => void;
}

interface Kept extends LateSettlement {
  readonly since: number;
}

/** About 2 KB each. */
const maxKept = 10_000;
/** Tried at once. */
const batch = 50;
const everyMs = 1000;
/** For so long it is certain that Redis would remember a try that succeeded: less than a settled hold is remembered. */
const freshMs = 240_000;

export function createLateSettles({ monotonic, log, onEnd }: LateSettlesOptions): LateSettles {
  let kept: Kept[] = [];
  let flushing: Promise<void> | undefined;
  const timer = setInterval(() => void flush(), everyMs).unref();

  function flush(): Promise<void> {
    flushing ??= flushNow().finally(() => (flushing = undefined));
    return flushing;
  }

  /** Tries all, oldest first, until one fails. */
  async function flushNow(): Promise<void> {
    let failed = false;
    while (kept.length > 0 && !failed) {
      const some = kept.slice(0, batch);
      const done = await Promise.all(some.map(settle));
      failed = done.includes(false);
      kept = kept.filter((late) => !some.includes(late) || done[some.indexOf(late)] !== true);
    }
  }

  async function settle(late: Kept): Promise<boolean> {
    try {
      await late.settle(monotonic() - late.since < freshMs);
      onEnd(late.parts);
      return true;
    } catch {
      return false;
    }
  }

  function lost({ request, settlement, parts }: LateSettlement): void {
    const { user, requestId } = request;
    const line = { user, requestId, outcome: settlement.outcome, charge: settlement.charge };
    log.error(line, "a final charge was lost; the first one stands, if there was one");
    onEnd(parts);
  }

  return {
    keep(late) {
      if (kept.length >= maxKept) lost(late);
      else kept.push({ ...late, since: monotonic() });
    },
    count: () => kept.length,
    async close() {
      clearInterval(timer);
      // One that runs may have begun, and failed, before what came last.
      await flushing;
      await flush();
      const missing = kept;
      kept = [];
      for (const late of missing) lost(late);
      if (missing.length > 0) throw new Error(`${missing.length} final charges could not be written`);
    },
  };
}
