import type { Awaitable } from "../lib/awaitable.ts";
import type { Hold, QuotaLimit } from "../quota/ledger.ts";
import { estimatedTokens, leastTokens } from "../providers/stream/output-tokens.ts";
import type { ResponseReport, EventRole } from "../providers/stream/response-reader.ts";
import type { RequestCost } from "./request-cost.ts";

/** Tokens of output by which a hold grows at a time. */
const stepTokens = 256;

/**
 * Watches that an answer stays inside what the user may use. While it is within its hold this costs a few comparisons an
 * event; beyond, the hold is made to grow step by step, and where there is no room the answer is to be cut.
 *
 * Where the request names a max_tokens it is the provider's to count them. A long text is no proof that it has not: the
 * hold need not grow until the answer is certainly longer.
 */
export class BudgetGuard {
  /** Tokens of output, as estimated, of the events that were let through. */
  shown = 0;
  /** The limit that has no room left; null while there is room. */
  blocked: QuotaLimit | null = null;
  readonly #hold: Hold;
  readonly #cost: RequestCost;
  /** Tokens of output for which there is room. */
  #held: number;
  /** Tokens of output that the events have at the least. */
  #least = 0;
  /** Events that end a choice and may still pass where there is no room: some providers say of each that it does. */
  #endsLeft: number;
  /** Whether the hold has been asked for a whole step that it had no room for. */
  #scarce = false;

  /** @param limited whether the user has limits at which answers are cut */
  constructor(hold: Hold, cost: RequestCost, limited: boolean) {
    this.#hold = hold;
    this.#cost = cost;
    this.#endsLeft = cost.choices;
    this.#held = limited ? cost.heldOutput : Infinity;
  }

  /**
   * Counts the next event's text as shown. False where there is no room for it: nothing more may be shown. An answer is
   * never cut where a choice ends, once for each. Counts events itself, because the reader is ahead by whatever the network brought at once.
   * Where the ledger answers later, so does this: no other event may be asked for until then. Throws, or rejects, with
   * whatever the ledger does.
   */
  letThrough(textBytes: number, role: EventRole): Awaitable<boolean> {
    if (textBytes === 0) return true;
    const shown = this.shown + estimatedTokens(textBytes);
    this.#least += leastTokens(textBytes);
    const fits = shown <= this.#held || (this.#cost.promised && this.#least <= this.#cost.heldOutput);
    const room = fits || this.#isEnd(role) || this.#makeRoom(shown - this.#held);
    if (room instanceof Promise) return room.then((later) => this.#show(shown, later));
    return this.#show(shown, room);
  }

  /** What was shown, which is all that is owed of an answer that was cut: for more there was no room. */
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

  /** Makes the hold grow: by a whole step, or, where there is no room for that, by what is missing. */
  #makeRoom(missing: number): Awaitable<boolean> {
    if (this.blocked !== null) return false;
    const step = this.#scarce ? missing : Math.ceil(missing / stepTokens) * stepTokens;
    const limit = this.#hold.grow(this.#cost.more(step));
    if (limit instanceof Promise) return limit.then((later) => this.#grown(later, step, missing));
    return this.#grown(limit, step, missing);
  }

  /** @param limit that has no room for the step */
  #grown(limit: QuotaLimit | null, step: number, missing: number): Awaitable<boolean> {
    if (limit === null) {
      this.#held += step;
      return true;
    }
    if (step > missing) {
      this.#scarce = true;
      return this.#makeRoom(missing);
    }
    this.blocked = limit;
    return false;
  }
}
