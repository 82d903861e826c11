import type { EventRole } from "../providers/stream/response-reader.ts";
import type { Attempt } from "../providers/attempt.ts";
import { followResponse, type EventConsumer } from "./response-flow.ts";
import type { ResponseWriter, DrainListener } from "./response-writer.ts";
import type { RequestEnd } from "./request-end.ts";
import type { BudgetGuard } from "./budget-guard.ts";

/**
 * Passes an answer's events on to the client byte for byte, as fast as it reads them.
 * Resolves when the answer is over or nobody reads it any more; the client's stream is still open then, so that the
 * charge is settled before the client hears of the end. Whether a provider's answer that is still running is followed
 * to its usage report is the story's decision.
 * @param guard says when the user's budget has run out
 * @param passUsageChunk whether the client asked for OpenAI's extra usage chunk; else it isn't shown
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
  /** Neighbouring events of one network read, to be written at once. */
  #run: Buffer | null = null;
  #runStart = 0;
  #runEnd = 0;

  constructor(attempt: Attempt, client: ResponseWriter, passUsageChunk: boolean) {
    this.#attempt = attempt;
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
    if (this.#attempt.reader.passesIds) this.#client.hasIds = true;
    if (!this.#client.write(bytes, this)) this.#attempt.pause();
  }

  onDrain(): void {
    this.#attempt.resume();
  }
}
