import type { Exchange } from "../upstream/exchange.ts";
import type { UpstreamFault } from "../upstream/faults.ts";
import type { AnswerSink } from "../upstream/answers/reader.ts";
import type { Client, DrainListener } from "./client.ts";
import { completed, endingOfCut, endingOfDeparture, endingOfFault, type Ending } from "./ending.ts";
import type { Meter } from "./meter.ts";

/**
 * Passes an answer's events on to the client byte for byte, as fast as it reads them.
 * Resolves when the answer is over or nobody reads it any more; the client's stream is still open then, so that the
 * charge is settled before the client hears of the end.
 * @param meter says when the user's budget has run out
 * @param passUsageChunk whether the client asked for OpenAI's extra usage chunk; else it isn't shown
 */
export function relay(exchange: Exchange, client: Client, meter: Meter, passUsageChunk: boolean): Promise<Ending> {
  return new Promise((resolve) => {
    new Relay(exchange, client, meter, passUsageChunk, resolve).start();
  });
}

class Relay implements AnswerSink, DrainListener {
  readonly #exchange: Exchange;
  readonly #client: Client;
  readonly #meter: Meter;
  readonly #passUsageChunk: boolean;
  readonly #resolve: (ending: Ending) => void;
  /** Neighbouring events of one network read, to be written at once. */
  #run: Buffer | null = null;
  #runStart = 0;
  #runEnd = 0;
  #ended = false;

  constructor(
    exchange: Exchange,
    client: Client,
    meter: Meter,
    passUsageChunk: boolean,
    resolve: (ending: Ending) => void,
  ) {
    this.#exchange = exchange;
    this.#client = client;
    this.#meter = meter;
    this.#passUsageChunk = passUsageChunk;
    this.#resolve = resolve;
  }

  start(): void {
    this.#client.onGone = () => {
      this.#leave();
    };
    if (this.#client.gone) this.#leave();
    else this.#exchange.pipe(this);
  }

  onEvent(event: Buffer, start: number, end: number, tokens: number, usageOnly: boolean): void {
    if (this.#ended || (usageOnly && !this.#passUsageChunk)) return;
    if (!this.#meter.letThrough(tokens)) {
      this.#flush();
      this.#end(endingOfCut(this.#meter));
      return;
    }
    if (this.#run === event && this.#runEnd === start) {
      this.#runEnd = end;
      return;
    }
    this.#flush();
    this.#run = event;
    this.#runStart = start;
    this.#runEnd = end;
  }

  onBatch(): void {
    this.#flush();
  }

  onEnd(fault: UpstreamFault | null): void {
    try {
      this.#flush();
    } finally {
      // Whatever happens, the story goes on to its charge.
      this.#end(fault === null ? completed : endingOfFault(fault));
    }
  }

  onDrain(): void {
    this.#exchange.resume();
  }

  #flush(): void {
    const run = this.#run;
    if (run === null) return;
    this.#run = null;
    const whole = this.#runStart === 0 && this.#runEnd === run.length;
    const bytes = whole ? run : run.subarray(this.#runStart, this.#runEnd);
    if (!this.#client.write(bytes, this)) this.#exchange.pause();
  }

  /** The provider's answer is left running: whether it is followed to its usage report is the story's decision. */
  #leave(): void {
    this.#end(endingOfDeparture(this.#client.departed ?? "client_gone"));
  }

  #end(ending: Ending): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#client.onGone = undefined;
    this.#resolve(ending);
  }
}
