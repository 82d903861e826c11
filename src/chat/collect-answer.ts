import { outputTokensOf, type AnswerSink } from "../upstream/answer-reader.ts";
import type { Exchange } from "../upstream/exchange.ts";
import { UpstreamFault } from "../upstream/faults.ts";
import type { Client } from "./client.ts";
import { Collector } from "./collect.ts";
import { completed, endingOfCut, endingOfDeparture, endingOfFault, type Ending } from "./ending.ts";
import type { Meter } from "./meter.ts";

/** What became of an answer that is to be one JSON. */
export interface Collected {
  readonly ending: Ending;
  /** The completion, as JSON; only with a complete answer. */
  readonly completion: string | null;
}

/**
 * Collects an answer's events into one chat completion. Resolves when the answer is over or nobody waits for it.
 * @param meter says when the user's budget has run out
 */
export function collectAnswer(exchange: Exchange, client: Client, meter: Meter): Promise<Collected> {
  return new Promise((resolve) => {
    new CollectingSink(exchange, client, meter, resolve).start();
  });
}

class CollectingSink implements AnswerSink {
  readonly #exchange: Exchange;
  readonly #client: Client;
  readonly #meter: Meter;
  readonly #resolve: (collected: Collected) => void;
  readonly #collector = new Collector();
  #fault: UpstreamFault | null = null;

  constructor(exchange: Exchange, client: Client, meter: Meter, resolve: (collected: Collected) => void) {
    this.#exchange = exchange;
    this.#client = client;
    this.#meter = meter;
    this.#resolve = resolve;
  }

  start(): void {
    this.#client.onGone = () => {
      this.#end(endingOfDeparture(this.#client.departed ?? "client_gone"));
    };
    if (this.#client.gone) this.#client.onGone();
    else this.#exchange.pipe(this);
  }

  onEvent(_event: Buffer, _start: number, _end: number, data: Buffer, dataStart: number, dataEnd: number): void {
    if (!this.#meter.letThrough(outputTokensOf(dataEnd - dataStart))) {
      this.#end(endingOfCut(this.#meter));
      return;
    }
    try {
      this.#collector.add(JSON.parse(data.toString("utf8", dataStart, dataEnd)));
    } catch (cause) {
      this.#fault ??= new UpstreamFault({ kind: "invalid_response", stage: "streaming", cause });
    }
  }

  onBatch(): void {
    // Nothing is written before the end.
  }

  onEnd(fault: UpstreamFault | null): void {
    const broken = fault ?? this.#fault;
    if (broken === null) this.#complete();
    else this.#end(endingOfFault(broken));
  }

  #complete(): void {
    try {
      this.#end(completed, JSON.stringify(this.#collector.result()));
    } catch (cause) {
      // JSON.parse takes nesting that JSON.stringify overflows on.
      this.#end(endingOfFault(new UpstreamFault({ kind: "invalid_response", stage: "streaming", cause })));
    }
  }

  /** The first ending counts; a promise ignores later ones. */
  #end(ending: Ending, completion: string | null = null): void {
    this.#client.onGone = undefined;
    this.#resolve({ ending, completion });
  }
}
