import type { Awaitable } from "../lib/awaitable.ts";
import type { ResponseSink, EventRole } from "../providers/stream/response-reader.ts";
import type { Attempt } from "../providers/attempt.ts";
import { UpstreamError } from "../providers/upstream-error.ts";
import { backendError } from "../quota/backend-call.ts";
import type { ResponseWriter } from "./response-writer.ts";
import {
  completed,
  endOfBudget,
  endOfDisconnect,
  endOfError,
  endOfUpstreamError,
  endOfSlowReader,
  type RequestEnd,
} from "./request-end.ts";
import type { BudgetGuard } from "./budget-guard.ts";

/** Who takes an answer's events, one by one. */
export interface EventConsumer {
  /** @throws UpstreamError where the answer is of no use any more */
  take(event: Buffer, start: number, end: number, role: EventRole, parsed: unknown): void;
  /** All that has come at once has been taken. */
  flush(): void;
}

/**
 * Hands an answer's events on to `taker` while the user's budget has room for them. While the ledger has not said so
 * nothing is read from the provider. Resolves when the answer is over or nobody waits for it any more; the provider's
 * answer may still be running then.
 */
export function followResponse(
  attempt: Attempt,
  client: ResponseWriter,
  guard: BudgetGuard,
  consumer: EventConsumer,
): Promise<RequestEnd> {
  return new Promise((resolve) => {
    new ResponseFlow(attempt, client, guard, consumer, resolve).start();
  });
}

class ResponseFlow implements ResponseSink {
  readonly #attempt: Attempt;
  readonly #client: ResponseWriter;
  readonly #guard: BudgetGuard;
  readonly #consumer: EventConsumer;
  readonly #resolve: (end: RequestEnd) => void;
  #ended = false;

  constructor(
    attempt: Attempt,
    client: ResponseWriter,
    guard: BudgetGuard,
    consumer: EventConsumer,
    resolve: (end: RequestEnd) => void,
  ) {
    this.#attempt = attempt;
    this.#client = client;
    this.#guard = guard;
    this.#consumer = consumer;
    this.#resolve = resolve;
  }

  start(): void {
    this.#client.onGone = () => {
      this.#end(endOfDisconnect(this.#client.disconnectReason ?? "client_gone"));
    };
    if (this.#client.gone) this.#client.onGone();
    else this.#attempt.pipe(this);
  }

  onEvent(event: Buffer, start: number, end: number, textBytes: number, role: EventRole, parsed: unknown): void {
    // What was taken and what is charged are the same, so nothing is added once the answer has been cut.
    if (this.#ended) return;
    let room: Awaitable<boolean>;
    try {
      room = this.#guard.letThrough(textBytes, role);
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
    this.#consumer.flush();
  }

  onEnd(error: UpstreamError | null): void {
    try {
      this.#consumer.flush();
    } finally {
      // Whatever happens, the story goes on to its charge.
      this.#end(this.#endOf(error));
    }
  }

  #endOf(error: UpstreamError | null): RequestEnd {
    if (error === null) return completed;
    return this.#attempt.brokenByReader ? endOfSlowReader(error) : endOfUpstreamError(error);
  }

  #take(event: Buffer, start: number, end: number, role: EventRole, parsed: unknown): void {
    try {
      this.#consumer.take(event, start, end, role, parsed);
    } catch (error) {
      if (!(error instanceof UpstreamError)) throw error;
      this.#end(endOfUpstreamError(error));
    }
  }

  /** The events behind one that waits for room are held by the attempt. */
  #await(room: Promise<boolean>, take: () => void): void {
    this.#consumer.flush();
    this.#attempt.unpipe();
    room
      .then((fits) => {
        if (this.#ended) return;
        if (!fits) {
          this.#cut();
          return;
        }
        take();
        this.#consumer.flush();
        this.#attempt.pipe(this);
      })
      .catch((error: unknown) => {
        this.#fail(error);
      });
  }

  #cut(): void {
    this.#consumer.flush();
    this.#end(endOfBudget(this.#guard));
  }

  #fail(error: unknown): void {
    this.#end(endOfError(backendError(error), this.#client.disconnectReason));
  }

  #end(end: RequestEnd): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#client.onGone = undefined;
    this.#resolve(end);
  }
}
