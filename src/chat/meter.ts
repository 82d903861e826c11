import type { Hold, Limit } from "../quota/ledger.ts";
import type { AnswerReport } from "../upstream/answers/reader.ts";
import type { Bill } from "./bill.ts";

/** Tokens of output by which a hold grows at a time. */
const stepTokens = 256;

/**
 * Watches that an answer stays inside what the user may use. While it is within its hold this costs one comparison an
 * event; beyond, the hold is made to grow step by step, and where there is no room the answer is to be cut.
 */
export class Meter {
  /** Tokens of output, as estimated, of the events that were let through. */
  shown = 0;
  /** The limit that has no room left; null while there is room. */
  blocked: Limit | null = null;
  readonly #hold: Hold;
  readonly #bill: Bill;
  /** Tokens of output that may be shown without asking. */
  #allowed: number;

  /** @param limited whether the user has limits at which answers are cut */
  constructor(hold: Hold, bill: Bill, limited: boolean) {
    this.#hold = hold;
    this.#bill = bill;
    this.#allowed = limited ? bill.heldOutput : Infinity;
  }

  /**
   * Counts the next event, of so many tokens of output, as shown. False where there is no room for it: nothing more may
   * be shown. Counts events itself, because the reader is ahead by whatever the network brought at once.
   */
  letThrough(tokens: number): boolean {
    const missing = this.shown + tokens - this.#allowed;
    if (missing > 0 && !this.#makeRoom(missing)) return false;
    this.shown += tokens;
    return true;
  }

  /** What was shown, which is all that is owed of an answer that was cut: for more there was no room. */
  report(): AnswerReport {
    return { usage: null, prompt: null, outputTokens: this.shown };
  }

  #makeRoom(missing: number): boolean {
    if (this.blocked !== null) return false;
    const step = Math.ceil(missing / stepTokens) * stepTokens;
    const answer = this.#hold.grow(this.#bill.more(step));
    if (answer instanceof Promise) {
      // A ledger that answers later can't stop this event; it stops the next one.
      void answer.then((limit) => {
        this.blocked = limit;
      });
    } else {
      this.blocked = answer;
    }
    if (this.blocked !== null) {
      // A smaller event that would fit isn't shown either: the answer has a gap now.
      this.#allowed = 0;
      return false;
    }
    this.#allowed += step;
    return true;
  }
}
