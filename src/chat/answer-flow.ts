import type { Awaitable } from "../lib/awaitable.ts";
import type { AnswerSink, EventRole } from "../upstream/answers/reader.ts";
import type { Exchange } from "../upstream/exchange.ts";
import { UpstreamFault } from "../upstream/faults.ts";
import { backendError } from "../quota/backend-call.ts";
import type { Client } from "./client.ts";
import {
  completed,
  endingOfCut,
  endingOfDeparture,
  endingOfError,
  endingOfFault,
  endingOfSlowReader,
  type Ending,
} from "./ending.ts";
import type { Meter } from "./meter.ts";

/** Who takes an answer's events, one by one. */
export interface EventTaker {
  /** @throws UpstreamFault where the answer is of no use any more */
  take(event: Buffer, start: number, end: number, role: EventRole, parsed: unknown): void;
  /** All that has come at once has been taken. */
  flush(): void;
}

/**
 * Hands an answer's events on to `taker` while the user's budget has room for them. While the ledger has not said so
 * nothing is read from the provider. Resolves when the answer is over or nobody waits for it any more; the provider's
 * answer may still be running then.
 */
export function followAnswer(exchange: Exchange, client: Client, meter: Meter, taker: EventTaker): Promise<Ending> {
  return new Promise((resolve) => {
    new AnswerFlow(exchange, client, meter, taker, resolve).start();
  });
}

class AnswerFlow implements AnswerSink {
  readonly #exchange: Exchange;
  readonly #client: Client;
  readonly #meter: Meter;
  readonly #taker: EventTaker;
  readonly #resolve: (ending: Ending) => void;
  #ended = false;

  constructor(exchange: Exchange, client: Client, meter: Meter, taker: EventTaker, resolve: (ending: Ending) => void) {
    this.#exchange = exchange;
    this.#client = client;
    this.#meter = meter;
    this.#taker = taker;
    this.#resolve = resolve;
  }

  start(): void {
    this.#client.onGone = () => {
      this.#end(endingOfDeparture(this.#client.departed ?? "client_gone"));
    };
    if (this.#client.gone) this.#client.onGone();
    else this.#exchange.pipe(this);
  }

  onEvent(event: Buffer, start: number, end: number, textBytes: number, role: EventRole, parsed: unknown): void {
    // What was taken and what is charged are the same, so nothing is added once the answer has been cut.
    if (this.#ended) return;
    let room: Awaitable<boolean>;
    try {
      room = this.#meter.letThrough(textBytes, role);
    } catch (error) {
      this.#fail(error);
      return;
    }
    if (room === true) this.#take(event, start, end, role, parsed);
    else if (room === false) this.#cut();
    else {
      this.#await(room, () => {
        this.#take(event, start, end, role, parsed);
      });
    }
  }

  onBatch(): void {
    this.#taker.flush();
  }

  onEnd(fault: UpstreamFault | null): void {
    try {
      this.#taker.flush();
    } finally {
      // Whatever happens, the story goes on to its charge.
      this.#end(this.#endingOf(fault));
    }
  }

  #endingOf(fault: UpstreamFault | null): Ending {
    if (fault === null) return completed;
    return this.#exchange.brokenByReader ? endingOfSlowReader(fault) : endingOfFault(fault);
  }

  #take(event: Buffer, start: number, end: number, role: EventRole, parsed: unknown): void {
    try {
      this.#taker.take(event, start, end, role, parsed);
    } catch (error) {
      if (!(error instanceof UpstreamFault)) throw error;
      this.#end(endingOfFault(error));
    }
  }

  /** The events behind one that waits for room are held by the exchange. */
  #await(room: Promise<boolean>, take: () => void): void {
    this.#taker.flush();
    this.#exchange.unpipe();
    room
      .then((fits) => {
        if (this.#ended) return;
        if (!fits) {
          this.#cut();
          return;
        }
        take();
        this.#taker.flush();
        this.#exchange.pipe(this);
      })
      .catch((error: unknown) => {
        this.#fail(error);
      });
  }

  #cut(): void {
    this.#taker.flush();
    this.#end(endingOfCut(this.#meter));
  }

  #fail(error: unknown): void {
    this.#end(endingOfError(backendError(error), this.#client.departed));
  }

  #end(ending: Ending): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#client.onGone = undefined;
    this.#resolve(ending);
  }
}
