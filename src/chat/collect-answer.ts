import type { EventRole } from "../upstream/answers/reader.ts";
import type { Exchange } from "../upstream/exchange.ts";
import { UpstreamFault } from "../upstream/faults.ts";
import { followAnswer, type EventTaker } from "./answer-flow.ts";
import type { Collector } from "./api-shape.ts";
import type { Client } from "./client.ts";
import { endingOfFault, type Ending } from "./ending.ts";
import type { Meter } from "./meter.ts";

/** What became of an answer that is to be one JSON. */
export interface Collected {
  readonly ending: Ending;
  /** The answer, as JSON; only where it is complete. */
  readonly completion: string | Buffer | null;
}

/**
 * Collects an answer's events into one JSON. Resolves when the answer is over, can't be made one JSON, or nobody waits
 * for it.
 * @param meter says when the user's budget has run out
 * @param maxBytes of all events together
 */
export async function collectAnswer(
  exchange: Exchange,
  client: Client,
  meter: Meter,
  collector: Collector,
  maxBytes: number,
): Promise<Collected> {
  const ending = await followAnswer(exchange, client, meter, new CollectingTaker(collector, maxBytes));
  if (ending.outcome !== "completed") return { ending, completion: null };
  try {
    // What came whole stays as it came.
    return { ending, completion: exchange.reader.whole ?? collector.body() };
  } catch (cause) {
    // JSON.parse takes nesting that JSON.stringify overflows on.
    return { ending: endingOfFault(unusable("the answer can't be written as one JSON", cause)), completion: null };
  }
}

class CollectingTaker implements EventTaker {
  readonly #collector: Collector;
  /** What is left of the bytes that the events may have. */
  #bytesLeft: number;

  constructor(collector: Collector, maxBytes: number) {
    this.#collector = collector;
    this.#bytesLeft = maxBytes;
  }

  take(event: Buffer, start: number, end: number, _role: EventRole, parsed: unknown): void {
    this.#bytesLeft -= end - start;
    if (this.#bytesLeft < 0) throw unusable("the answer is too large to be one JSON");
    try {
      this.#collector.add(parsed, event, start, end);
    } catch (cause) {
      throw unusable("the events don't make one JSON", cause);
    }
  }

  flush(): void {
    // Nothing is written before the end.
  }
}

function unusable(upstreamMessage: string, cause?: unknown): UpstreamFault {
  return new UpstreamFault({ kind: "invalid_response", stage: "streaming", upstreamMessage, cause });
}
