import type { EventRole } from "../providers/stream/response-reader.ts";
import type { Attempt } from "../providers/attempt.ts";
import { followResponse, type EventConsumer } from "./response-flow.ts";
import type { ResponseWriter, DrainListener } from "./response-writer.ts";
import type { RequestEnd } from "./request-end.ts";
import type { BudgetGuard } from "./budget-guard.ts";

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
