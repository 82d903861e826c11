import type { Awaitable } from "../lib/awaitable.ts";
import type { DisconnectSignal } from "../lib/disconnect-signal.ts";

/** What a cap is for. */
export type PermitKind = "user" | "group" | "model" | "provider" | "process";

/** A cap on the requests that run at the same time, for one subject. */
export interface PermitScope {
  readonly kind: PermitKind;
  /** The name of the user, group, model or provider; "" for the process. */
  readonly key: string;
  /** Most permits, at least 1. May differ between requests; the latest value counts for all that wait. */
  readonly max: number;
}

/** What a request needs in order to run: a place in each of its scopes and at one provider, all or none. */
export interface PermitRequest {
  /** Identifies the permit, so that a permit whose result was lost can be recognized. */
  readonly requestId: string;
  readonly user: string;
  /** Share of the user among those who wait, 1 to 100. */
  readonly weight: number;
  /** What has no cap is left out. */
  readonly scopes: readonly PermitScope[];
  /** Of these, the first with room; empty: no provider is counted. One without a cap has `max` Infinity. */
  readonly providers: readonly PermitScope[];
  /** The cap of a scope by now, Infinity if it has none: asked about each second while the request waits. Absent: as it was. */
  readonly maxNow?: ((scope: PermitScope) => Awaitable<number>) | undefined;
}

/** Permission to run one request. */
export interface Permit {
  /** The provider whose place it holds; null: none is counted. */
  readonly provider: string | null;
  /** Moves its place to another provider, for failover, if that has room; else false. Never waits. */
  move(provider: PermitScope): Awaitable<boolean>;
  /** Releases it and wakes the next request in the queue. Later calls do nothing. */
  release(): Awaitable<void>;
}

/** How a request stands in the queue. */
export interface Waiting {
  /** 1: it is the next. */
  readonly place: number;
  /** Estimated time until its turn, in ms; null: unknown. */
  readonly expectedMs: number | null;
}

/** Limits how many requests run at the same time. */
export interface ConcurrencyLimiter {
  /**
   * A permit at once if one is free, else a promise of one: requests queue, for a bounded time. Throws or rejects with
   * AppError concurrency_exceeded (429) or shutting_down (503), or with ClientDisconnectedError.
   *
   * @param onWaiting called once if the request has to wait: by a limiter in memory before the promise is returned
   */
  acquire(
    request: PermitRequest,
    signal: DisconnectSignal,
    onWaiting?: (now: () => Waiting) => void,
  ): Awaitable<Permit>;
  /** Permits that requests of this process hold now. */
  inFlight(): number;
  /** Requests of this process that wait for a permit now. */
  waiting(): number;
  /** Rejects all waiting and later requests of this process with shutting_down. Permits already held stay valid. */
  close(): void;
}
