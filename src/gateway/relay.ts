import type { BudgetGuard } from "./budget-guard.ts";
import type { Awaitable } from "../lib/awaitable.ts";
import type { Attempt } from "../providers/attempt.ts";
import type { EventRole, ResponseSink } from "../providers/stream/response-reader.ts";
import { UpstreamError } from "../providers/upstream-error.ts";
import {
  completed,
  endOfBudget,
  endOfDisconnect,
  endOfError,
  endOfSlowReader,
  endOfUpstreamError,
  type RequestEnd,
} from "./request-context.ts";
import type { DrainListener, ResponseWriter } from "./response-writer.ts";

/**
 * Passes a response's events on to the client byte for byte, as fast as the client reads them. Resolves when the
 * response is over or the client has disconnected. The client's stream is still open then, so that the charge is
 * settled before the client sees the end. The caller decides whether to read on to the usage report if the provider is
 * still sending.
 * @param guard tells when the user's budget has run out
 * @param passUsageChunk whether the client asked for OpenAI's extra usage chunk; if not, it is left out
 */
export function relay(
  attempt: Attempt,
  client: ResponseWriter,
  guard: BudgetGuard,
  passUsageChunk: boolean,
): Promise<RequestEnd> {
  return followResponse(attempt, client, guard, new Relay(attempt, client, passUsageChunk));
}

class Relay implements EventConsumer, DrainListener {
  readonly #attempt: Attempt;
  readonly #client: ResponseWriter;
  readonly #passUsageChunk: boolean;
  /** The buffer of adjacent events from one network read, which are written together. */
  #run: Buffer | null = null;
  #runStart = 0;
  #runEnd = 0;

  constructor(attempt: Attempt, client: ResponseWriter, passUsageChunk: boolean) {
    this.#attempt = attempt;
    this.#client = client;
    this.#passUsageChunk = passUsageChunk;
  }

  take(event: Buffer, start: number, end: number, role: EventRole, parsed: unknown): void {
    if (role === "usage" && !this.#passUsageChunk) return;
    if (role === "last") {
      // Like any other ending it is written once the charge is settled.
      this.#client.ending = event.subarray(start, end);
      return;
    }
    if (parsed !== undefined) this.#client.noteEvent(parsed);
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
    if (this.#attempt.reader.passesIds) this.#client.hasIds = true;
    if (!this.#client.write(bytes, this)) this.#attempt.pause();
  }

  onDrain(): void {
    this.#attempt.resume();
  }
}

/** Receives a response's events, one by one. */
export interface EventConsumer {
  /** @throws UpstreamError if the response has become unusable */
  take(event: Buffer, start: number, end: number, role: EventRole, parsed: unknown): void;
  /** All events that arrived together have been taken. */
  flush(): void;
}

/**
 * Passes a response's events on to `consumer` while the user's budget has room for them. Nothing is read from the
 * provider while the ledger is still deciding. Resolves when the response is over or the client has disconnected; the
 * provider may still be sending then.
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
    const onGone = (): void => {
      this.#end(endOfDisconnect(this.#client.disconnectReason ?? "client_gone"));
    };
    this.#client.onGone = onGone;
    if (this.#client.gone) onGone();
    else this.#attempt.pipe(this);
  }

  onEvent(event: Buffer, start: number, end: number, textBytes: number, role: EventRole, parsed: unknown): void {
    // Only events that were passed on are charged, so nothing is counted after the response has been cut.
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
      // Even if flush() throws, the request must go on to its settlement.
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

  /** Waits for room in the budget. Meanwhile the attempt buffers the following events. */
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
    this.#end(endOfError(error, this.#client.disconnectReason));
  }

  #end(end: RequestEnd): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#client.onGone = undefined;
    this.#resolve(end);
  }
}
