import type { Exchange } from "../upstream/exchange.ts";
import { UpstreamFault } from "../upstream/faults.ts";
import type { AnswerSink } from "../upstream/answers/reader.ts";
import type { Collector } from "./api-shape.ts";
import type { Client } from "./client.ts";
import { completed, endingOfCut, endingOfDeparture, endingOfFault, type Ending } from "./ending.ts";
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
export function collectAnswer(
  exchange: Exchange,
  client: Client,
  meter: Meter,
  collector: Collector,
  maxBytes: number,
): Promise<Collected> {
  return new Promise((resolve) => {
    new CollectingSink(exchange, client, meter, collector, maxBytes, resolve).start();
  });
}

class CollectingSink implements AnswerSink {
  readonly #exchange: Exchange;
  readonly #client: Client;
  readonly #meter: Meter;
  readonly #collector: Collector;
  readonly #resolve: (collected: Collected) => void;
  /** What is left of the bytes that the events may have. */
  #bytesLeft: number;
  #ended = false;

  constructor(
    exchange: Exchange,
    client: Client,
    meter: Meter,
    collector: Collector,
    maxBytes: number,
    resolve: (collected: Collected) => void,
  ) {
    this.#exchange = exchange;
    this.#client = client;
    this.#meter = meter;
    this.#collector = collector;
    this.#bytesLeft = maxBytes;
    this.#resolve = resolve;
  }

  start(): void {
    this.#client.onGone = () => {
      this.#end(endingOfDeparture(this.#client.departed ?? "client_gone"));
    };
    if (this.#client.gone) this.#client.onGone();
    else this.#exchange.pipe(this);
  }

  onEvent(event: Buffer, start: number, end: number, tokens: number, _usageOnly: boolean, parsed: unknown): void {
    // What was shown and what is charged are the same, so nothing is added once the answer has been cut.
    if (this.#ended) return;
    this.#bytesLeft -= end - start;
    if (this.#bytesLeft < 0) this.#fail("the answer is too large to be one JSON");
    else if (this.#meter.letThrough(tokens)) this.#add(event, start, end, parsed);
    else this.#end(endingOfCut(this.#meter));
  }

  onBatch(): void {
    // Nothing is written before the end.
  }

  onEnd(fault: UpstreamFault | null): void {
    if (fault === null) this.#complete();
    else this.#end(endingOfFault(fault));
  }

  #add(event: Buffer, start: number, end: number, parsed: unknown): void {
    try {
      this.#collector.add(parsed, event, start, end);
    } catch (cause) {
      this.#fail("the events don't make one JSON", cause);
    }
  }

  #complete(): void {
    try {
      this.#end(completed, this.#collector.body());
    } catch (cause) {
      // JSON.parse takes nesting that JSON.stringify overflows on.
      this.#fail("the answer can't be written as one JSON", cause);
    }
  }

  #fail(upstreamMessage: string, cause?: unknown): void {
    this.#end(
      endingOfFault(new UpstreamFault({ kind: "invalid_response", stage: "streaming", upstreamMessage, cause })),
    );
  }

  #end(ending: Ending, completion: string | Buffer | null = null): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#client.onGone = undefined;
    this.#resolve({ ending, completion });
  }
}
