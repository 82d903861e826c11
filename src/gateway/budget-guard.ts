import type { Awaitable } from "../lib/awaitable.ts";
import type { BucketState, Hold } from "../quota/ledger.ts";
import { estimatedTokens, leastTokens } from "../providers/stream/output-tokens.ts";
import type { ResponseReport, EventRole } from "../providers/stream/response-reader.ts";
import type { RequestCost } from "./request-cost.ts";

/** Output tokens by which a hold grows at a time. */
const stepTokens = 256;

/**
 * Keeps a response within the user's budget. Within its hold this costs a few comparisons for each event. Beyond it the
 * hold grows step by step, and if there is no room the response is cut.
 *
 * If the request sets max_tokens, the provider enforces it. A long text doesn't prove that it failed to, since the
 * tokens are only estimated: the hold need not grow until the response is certainly longer than max_tokens.
 */
export class BudgetGuard {
  /** Estimated output tokens of the events that were let through. */
  shown = 0;
  /** The bucket that is exhausted; null while there is room. */
  blocked: BucketState | null = null;
  readonly #hold: Hold;
  readonly #cost: RequestCost;
  /** Output tokens that are reserved. */
  #reserved: number;
  /** The fewest output tokens that the events can have. */
  #least = 0;
  /** Events ending a choice that may still pass without room. Limited, as some providers mark every event as an end. */
  #endsLeft: number;
  /** Whether the hold could not grow by a whole step. */
  #scarce = false;

  /** @param limited whether the user has limits that cut responses */
  constructor(hold: Hold, cost: RequestCost, limited: boolean) {
    this.#hold = hold;
    this.#cost = cost;
    this.#endsLeft = cost.choices;
    this.#reserved = limited ? cost.reservedOutput : Infinity;
  }

  /**
   * Counts the next event's text as shown. False if there is no room for it: nothing more may be sent. The end of a
   * choice always passes, once for each choice. Counts the events itself, because the reader is ahead by everything
   * that arrived in one network read. If the ledger is asynchronous the result is a promise: wait for it before the
   * next call. Throws or rejects with the errors of the ledger.
   */
  letThrough(textBytes: number, role: EventRole): Awaitable<boolean> {
    if (textBytes === 0) return true;
    const shown = this.shown + estimatedTokens(textBytes);
    this.#least += leastTokens(textBytes);
    const fits = shown <= this.#reserved || (this.#cost.hasMaxTokens && this.#least <= this.#cost.reservedOutput);
    const room = fits || this.#isEnd(role) || this.#makeRoom(shown - this.#reserved);
    if (room instanceof Promise) return room.then((later) => this.#show(shown, later));
    return this.#show(shown, room);
  }

  /** The part that was shown, which is all that is charged of a response that was cut: there was no room for more. */
  report(): ResponseReport {
    return { usage: null, prompt: null, outputTokens: this.shown };
  }

  #isEnd(role: EventRole): boolean {
    return role !== "part" && this.#endsLeft-- > 0;
  }

  #show(shown: number, fits: boolean): boolean {
    if (fits) this.shown = shown;
    return fits;
  }

  /** Makes the hold grow by a whole step or, if there is no room for that, by what is missing. */
  #makeRoom(missing: number): Awaitable<boolean> {
    if (this.blocked !== null) return false;
    const step = this.#scarce ? missing : Math.ceil(missing / stepTokens) * stepTokens;
    const full = this.#hold.grow(this.#cost.more(step));
    if (full instanceof Promise) return full.then((later) => this.#grown(later, step, missing));
    return this.#grown(full, step, missing);
  }

  /** @param full the bucket that has no room for the step */
  #grown(full: BucketState | null, step: number, missing: number): Awaitable<boolean> {
    if (full === null) {
      this.#reserved += step;
      return true;
    }
    if (step > missing) {
      this.#scarce = true;
      return this.#makeRoom(missing);
    }
    this.blocked = full;
    return false;
  }
}
