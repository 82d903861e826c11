import type { EventRole } from "../providers/stream/response-reader.ts";
import type { Attempt } from "../providers/attempt.ts";
import { UpstreamError } from "../providers/upstream-error.ts";
import { followResponse, type EventConsumer } from "./relay.ts";
import type { Collector } from "./formats/api-format.ts";
import type { ResponseWriter } from "./response-writer.ts";
import { endOfUpstreamError, type RequestEnd } from "./request-context.ts";
import type { BudgetGuard } from "./budget-guard.ts";

/** The result of collecting a response into one JSON. */
export interface Collected {
  readonly end: RequestEnd;
  /** The response as JSON; null unless it is complete. */
  readonly completion: string | Buffer | null;
}

/**
 * Collects a response's events into one JSON. Resolves when the response is over, can't be combined into one JSON, or
 * the client has disconnected.
 * @param guard tells when the user's budget has run out
 * @param maxBytes of all events together
 */
export async function collectResponse(
  attempt: Attempt,
  client: ResponseWriter,
  guard: BudgetGuard,
  collector: Collector,
  maxBytes: number,
): Promise<Collected> {
  const consumer = new CollectingConsumer(attempt, collector, maxBytes);
  const end = await followResponse(attempt, client, guard, consumer);
  // That limit is ours, and the client chose how long the response is: the provider has not failed.
  if (consumer.isFull) return { end: { ...end, outcome: "quota_cut" }, completion: null };
  if (end.outcome !== "completed") return { end, completion: null };
  try {
    // A response that arrived as one JSON is passed on unchanged.
    return { end, completion: attempt.reader.whole ?? collector.body() };
  } catch (cause) {
    // A part is missing, or JSON.stringify can't write what JSON.parse has read.
    return { end: endOfUpstreamError(unusable("the response can't be written as one JSON", cause)), completion: null };
  }
}

class CollectingConsumer implements EventConsumer {
  readonly #attempt: Attempt;
  readonly #collector: Collector;
  /** Bytes that further events may still have. */
  #bytesLeft: number;

  constructor(attempt: Attempt, collector: Collector, maxBytes: number) {
    this.#attempt = attempt;
    this.#collector = collector;
    this.#bytesLeft = maxBytes;
  }

  /** Whether the events were larger than one JSON may be. */
  get isFull(): boolean {
    return this.#bytesLeft < 0;
  }

  take(event: Buffer, start: number, end: number, _role: EventRole, parsed: unknown): void {
    this.#bytesLeft -= end - start;
    if (this.isFull) throw unusable("the response is too large to be one JSON");
    try {
      this.#collector.add(parsed, event, start, end);
    } catch (cause) {
      // One JSON already, which is passed on whatever its events come to.
      if (this.#attempt.reader.whole === null) throw unusable("the events don't make one JSON", cause);
    }
  }

  flush(): void {
    // Nothing is written before the end.
  }
}

function unusable(upstreamMessage: string, cause?: unknown): UpstreamError {
  return new UpstreamError({ kind: "invalid_response", stage: "streaming", upstreamMessage, cause });
}
