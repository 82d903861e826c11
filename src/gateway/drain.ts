import type { Attempt } from "../providers/attempt.ts";

/** How far an answer is followed that nobody reads any more. */
export interface DrainBounds {
  readonly ms: number;
  /** Tokens of output, as estimated. */
  readonly tokens: number;
}

/** An answer that is followed without being shown. */
export interface Drain {
  /** Resolves when the answer is over or a bound is reached; the caller then cancels what is left. */
  readonly done: Promise<void>;
  /** Ends it now. */
  stop(): void;
}

/** Follows an answer whose client has left to its usage report, so that the charge is exact. */
export function startDrain(attempt: Attempt, bounds: DrainBounds): Drain {
  let stop = (): void => undefined;
  const done = new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, bounds.ms).unref();
    stop = () => {
      clearTimeout(timer);
      resolve();
    };
  });
  const until = attempt.reader.outputTokens + bounds.tokens;
  attempt.pipe({
    onEvent() {
      if (attempt.reader.outputTokens > until) stop();
    },
    onBatch: () => undefined,
    onEnd: stop,
  });
  return { done, stop };
}
