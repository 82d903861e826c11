import type { Attempt } from "../providers/attempt.ts";

/** How long to keep reading a response after its client has gone. */
export interface DrainBounds {
  readonly ms: number;
  /** Estimated output tokens. */
  readonly tokens: number;
}

/** A response that is read without being sent to anyone. */
export interface Drain {
  /** Resolves when the response is over or a bound is reached; the caller then cancels the rest. */
  readonly done: Promise<void>;
  /** Ends it now. */
  stop(): void;
}

/** Reads a response on to its usage report after the client has disconnected, so that the charge is exact. */
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
