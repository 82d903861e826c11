import type { Clock } from "../lib/clock.ts";
import type { UpstreamStage } from "./upstream-error.ts";
import type { UpstreamTimeouts } from "./provider.ts";

/** Who is told. */
export interface DeadlineListener {
  onDeadline(stage: UpstreamStage): void;
  /** What was still to come has had its time. */
  onGraceOver(): void;
}

type Stage = "first_byte" | "first_event" | "streaming";

/**
 * All deadlines of one answer on a single timer. The timer is set to the shortest of the times and only looks whether
 * a deadline has passed, so that an event costs one assignment instead of a timer moved: a stage that begins between
 * two looks cannot end before the next one.
 */
export class Deadlines {
  /** Monotonic ms. */
  startedAt = 0;
  /** Monotonic ms from which the total time counts. */
  #since = 0;
  readonly #timeouts: UpstreamTimeouts;
  readonly #clock: Clock;
  readonly #listener: DeadlineListener;
  readonly #step: number;
  #timer: NodeJS.Timeout | undefined;
  #stage: Stage = "first_byte";
  #lastEventAt = 0;
  #heldSince: number | null = null;
  /** How long reading had paused before, in ms. */
  #heldMs = 0;
  /** Monotonic ms at which it ends in any case. */
  #cutAt = Infinity;
  /** Monotonic ms until which the rest is waited for of an answer of which nothing is missing. */
  #graceUntil = Infinity;

  constructor(timeouts: UpstreamTimeouts, clock: Clock, listener: DeadlineListener) {
    this.#timeouts = timeouts;
    this.#clock = clock;
    this.#listener = listener;
    this.#step = Math.min(timeouts.firstByte, timeouts.firstEvent, timeouts.idle, timeouts.total);
  }

  /** @param since monotonic ms from which the total time counts: other providers may have been asked before */
  start(since: number): void {
    this.startedAt = this.#clock.monotonic();
    this.#since = since;
    this.#arm(Math.min(this.#step, since + this.#timeouts.total - this.startedAt));
  }

  stop(): void {
    this.#graceUntil = Infinity;
    clearTimeout(this.#timer);
  }

  toStage(stage: Stage): void {
    this.#stage = stage;
  }

  /** What is still to come must come within `ms`. */
  endWithin(ms: number): void {
    this.#cutAt = this.#clock.monotonic() + ms;
    this.#lookSoon();
  }

  /** The rest of the answer is waited for so long, while it is read; null where the answer is not at its end after all. */
  setGrace(ms: number | null): void {
    this.#graceUntil = ms === null ? Infinity : this.#clock.monotonic() + ms;
    if (ms !== null) this.#lookSoon();
  }

  /** A data event has arrived. */
  touch(): void {
    this.#lastEventAt = this.#clock.monotonic();
  }

  /** The reader has paused: time that passes is our doing now, not the provider's. */
  hold(): void {
    this.#heldSince ??= this.#clock.monotonic();
  }

  release(): void {
    if (this.#heldSince === null) return;
    this.touch();
    const heldMs = this.#lastEventAt - this.#heldSince;
    this.#heldMs += heldMs;
    this.#heldSince = null;
    if (this.#graceUntil === Infinity) return;
    this.#graceUntil += heldMs;
    this.#lookSoon();
  }

  #arm(ms: number): void {
    this.#timer = setTimeout(look, Math.max(1, Math.ceil(ms)), this).unref();
  }

  look(): void {
    const now = this.#clock.monotonic();
    const heldMs = this.#heldMs + (this.#heldSince === null ? 0 : now - this.#heldSince);
    const totalLeft = this.#since + this.#timeouts.total + heldMs - now;
    const stageLeft = Math.min(this.#stageEnd(now), this.#cutAt) - now;
    const graceLeft = this.#heldSince === null ? this.#graceUntil - now : Infinity;
    if (totalLeft <= 0) this.#listener.onDeadline("total");
    else if (stageLeft <= 0) this.#listener.onDeadline(this.#stage);
    else {
      const isGraceOver = graceLeft <= 0;
      if (isGraceOver) this.#graceUntil = Infinity;
      this.#arm(Math.min(this.#step, totalLeft, stageLeft, isGraceOver ? Infinity : graceLeft));
      if (isGraceOver) this.#listener.onGraceOver();
    }
  }

  #lookSoon(): void {
    clearTimeout(this.#timer);
    this.look();
  }

  #stageEnd(now: number): number {
    if (this.#heldSince !== null) return now + this.#step;
    if (this.#stage === "streaming") return this.#lastEventAt + this.#timeouts.idle;
    const { firstByte, firstEvent } = this.#timeouts;
    // The time to the first event runs from the start as well, whether or not there are headers yet.
    return this.startedAt + (this.#stage === "first_byte" ? Math.min(firstByte, firstEvent) : firstEvent);
  }
}

function look(deadlines: Deadlines): void {
  deadlines.look();
}
