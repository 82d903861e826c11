import type { Clock } from "../lib/clock.ts";
import type { UpstreamTimeouts } from "./provider.ts";
import type { UpstreamStage } from "./upstream-error.ts";

/** Notified when a deadline passes. */
export interface DeadlineListener {
  onDeadline(stage: UpstreamStage): void;
  /** The grace period for the rest of the response is over. */
  onGraceOver(): void;
}

type Stage = "first_byte" | "first_event" | "streaming";

/**
 * All deadlines of one response on a single timer. The timer runs at the shortest timeout and only checks whether a
 * deadline has passed, so that an event costs one assignment instead of a new timer: a stage that begins between two
 * checks cannot end before the next one.
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
  /** Total length of earlier pauses, in ms. */
  #heldMs = 0;
  /** Monotonic ms at which the response is cut in any case. */
  #cutAt = Infinity;
  /** Monotonic ms until which to wait for the rest of a response that may already be complete. */
  #graceUntil = Infinity;

  constructor(timeouts: UpstreamTimeouts, clock: Clock, listener: DeadlineListener) {
    this.#timeouts = timeouts;
    this.#clock = clock;
    this.#listener = listener;
    this.#step = Math.min(timeouts.firstByte, timeouts.firstEvent, timeouts.idle, timeouts.total);
  }

  /** @param since monotonic ms from which the total time counts: other providers may have been tried before */
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

  /** The rest of the response must arrive within `ms`. */
  endWithin(ms: number): void {
    this.#cutAt = this.#clock.monotonic() + ms;
    this.#lookSoon();
  }

  /** Waits this long for the rest, not counting pauses; null if the response is not at its end after all. */
  setGrace(ms: number | null): void {
    this.#graceUntil = ms === null ? Infinity : this.#clock.monotonic() + ms;
    if (ms !== null) this.#lookSoon();
  }

  /** A data event has arrived. */
  touch(): void {
    this.#lastEventAt = this.#clock.monotonic();
  }

  /** Reading is paused: from now on the time doesn't count against the provider. */
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
    // The time to the first event also runs from the start, whether or not there are headers yet.
    return this.startedAt + (this.#stage === "first_byte" ? Math.min(firstByte, firstEvent) : firstEvent);
  }
}

function look(deadlines: Deadlines): void {
  deadlines.look();
}

/** Shortest hold, in ms, that can make a provider give up. */
const briefMs = 50;
/** Bounds of the silence, in ms, after which new data was sent after the hold. */
const leastSilenceMs = 50;
const longestSilenceMs = 5000;
/** After reading for at least this long, in ms, no data from before is still in transit; longer after a longer hold. */
const leastFreeMs = 1000;

/**
 * Tracks whether a response is held back because its reader is behind, or was so recently that this may cause its end:
 * a provider that can't send may give up, while data it sent earlier is still in transit. Times are monotonic ms.
 */
export class Backpressure {
  #heldSince: number | null = null;
  /** How long the response was held back recently; 0 once that can no longer have an effect. */
  #heldMs = 0;
  #releasedAt = 0;
  #receivedAt = 0;

  /** Whether dataReceived() must be called. */
  get isSettling(): boolean {
    return this.#heldMs > 0 && this.#heldSince === null;
  }

  hold(now: number): void {
    this.#heldSince ??= now;
  }

  release(now: number): void {
    if (this.#heldSince === null) return;
    this.#heldMs += now - this.#heldSince;
    this.#heldSince = null;
    this.#releasedAt = this.#receivedAt = now;
  }

  /**
   * Data arrived from the provider. After a silence, or after a while, this proves that the provider is still there.
   */
  dataReceived(now: number): void {
    const silenceMs = Math.min(Math.max(leastSilenceMs, this.#heldMs / 10), longestSilenceMs);
    const freeMs = Math.max(leastFreeMs, this.#heldMs);
    if (now - this.#receivedAt > silenceMs || now - this.#releasedAt > freeMs) this.#heldMs = 0;
    this.#receivedAt = now;
  }

  /** Whether a response that breaks off now may do so because it was held back. */
  mayHaveBrokenResponse(now: number): boolean {
    return this.#heldMs + (this.#heldSince === null ? 0 : now - this.#heldSince) >= briefMs;
  }
}
