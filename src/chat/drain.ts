import type { AnswerSink } from "../upstream/answer-reader.ts";
import type { Exchange } from "../upstream/exchange.ts";

/** How far an answer is followed that nobody reads any more. */
export interface DrainBounds {
  readonly ms: number;
  /** Tokens of output, as estimated. */
  readonly tokens: number;
}

/**
 * Follows an answer whose client has left to its usage report, so that the charge is exact. Resolves when the answer
 * is over or a bound is reached; the caller then cancels what is left.
 */
export function drain(exchange: Exchange, bounds: DrainBounds): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, bounds.ms).unref();
    const stop = (): void => {
      clearTimeout(timer);
      resolve();
    };
    const until = exchange.reader.outputTokens + bounds.tokens;
    const sink: AnswerSink = {
      onEvent() {
        if (exchange.reader.outputTokens > until) stop();
      },
      onBatch: () => undefined,
      onEnd: stop,
    };
    exchange.pipe(sink);
  });
}
