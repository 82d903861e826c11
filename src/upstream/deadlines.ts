import type { Clock } from "../lib/clock.ts";
import type { FaultStage } from "./faults.ts";
import type { UpstreamTimeouts } from "./providers/provider.ts";

/** Who is told. */
export interface DeadlineListener {
  onDeadline(stage: FaultStage): void;
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
    clearTimeout(this.#timer);
  }

  toStage(stage: Stage): void {
    this.#stage = stage;
  }

  /** What is still to come must come within `ms`. */
  endWithin(ms: number): void {
    this.#cutAt = this.#clock.monotonic() + ms;
    clearTimeout(this.#timer);
    this.look();
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
    this.#heldMs += this.#lastEventAt - this.#heldSince;
    this.#heldSince = null;
  }

  #arm(ms: number): void {
    this.#timer = setTimeout(look, Math.max(1, Math.ceil(ms)), this).unref();
  }

  look(): void {
    const now = this.#clock.monotonic();
    const heldMs = this.#heldMs + (this.#heldSince === null ? 0 : now - this.#heldSince);
    const totalLeft = this.#since + this.#timeouts.total + heldMs - now;
    const stageLeft = Math.min(this.#stageEnd(now), this.#cutAt) - now;
    if (totalLeft <= 0) this.#listener.onDeadline("total");
    else if (stageLeft <= 0) this.#listener.onDeadline(this.#stage);
    else this.#arm(Math.min(this.#step, totalLeft, stageLeft));
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
