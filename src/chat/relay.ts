import type { EventRole } from "../upstream/answers/reader.ts";
import type { Exchange } from "../upstream/exchange.ts";
import { followAnswer, type EventTaker } from "./answer-flow.ts";
import type { Client, DrainListener } from "./client.ts";
import type { Ending } from "./ending.ts";
import type { Meter } from "./meter.ts";

/**
 * Passes an answer's events on to the client byte for byte, as fast as it reads them.
 * Resolves when the answer is over or nobody reads it any more; the client's stream is still open then, so that the
 * charge is settled before the client hears of the end. Whether a provider's answer that is still running is followed
 * to its usage report is the story's decision.
 * @param meter says when the user's budget has run out
 * @param passUsageChunk whether the client asked for OpenAI's extra usage chunk; else it isn't shown
 */
export function relay(exchange: Exchange, client: Client, meter: Meter, passUsageChunk: boolean): Promise<Ending> {
  return followAnswer(exchange, client, meter, new Relay(exchange, client, passUsageChunk));
}

class Relay implements EventTaker, DrainListener {
  readonly #exchange: Exchange;
  readonly #client: Client;
  readonly #passUsageChunk: boolean;
  /** Neighbouring events of one network read, to be written at once. */
  #run: Buffer | null = null;
  #runStart = 0;
  #runEnd = 0;

  constructor(exchange: Exchange, client: Client, passUsageChunk: boolean) {
    this.#exchange = exchange;
    this.#client = client;
    this.#passUsageChunk = passUsageChunk;
  }

  take(event: Buffer, start: number, end: number, role: EventRole): void {
    if (role === "usage" && !this.#passUsageChunk) return;
    if (this.#run === event && this.#runEnd === start) {
      this.#runEnd = end;
      return;
    }
    this.flush();
    this.#run = event;
    this.#runStart = start;
    this.#runEnd = end;
  }

  flush(): void {
    const run = this.#run;
    if (run === null) return;
    this.#run = null;
    const whole = this.#runStart === 0 && this.#runEnd === run.length;
    const bytes = whole ? run : run.subarray(this.#runStart, this.#runEnd);
    if (this.#exchange.reader.passesIds) this.#client.hasIds = true;
    if (!this.#client.write(bytes, this)) this.#exchange.pause();
  }

  onDrain(): void {
    this.#exchange.resume();
  }
}
