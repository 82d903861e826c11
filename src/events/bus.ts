import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import type { Emit, ProxyEvent } from "./catalogue.ts";

/**
 * Handles every event, synchronously and quickly: it runs inside the request. Slow work belongs in the sink's own
 * queue.
 */
export type Sink = (event: ProxyEvent) => void;

export interface Bus {
  /**
   * Passes the event to each sink in the order of subscription. What a sink emits meanwhile comes after it, so all sinks
   * see the same order. Never throws.
   */
  readonly emit: Emit;
  /** Adds a sink. `name` is for logs and metrics, so it comes from the code, never from outside. */
  subscribe(name: string, sink: Sink): void;
  /** How many events each sink failed on. */
  sinkErrors(): ReadonlyMap<string, number>;
}

interface Subscription {
  readonly name: string;
  readonly sink: Sink;
  errors: number;
  /** Monotonic ms. */
  loggedAt: number;
}

/** A broken sink may fail on every request; its errors are logged only this often. */
const logEveryMs = 10_000;

/** Carries events from requests to sinks. A failing sink affects neither requests nor other sinks. */
export function createBus(options: { readonly log: Log; readonly clock: Clock }): Bus {
  const { log, clock } = options;
  const subscriptions: Subscription[] = [];
  const emittedMeanwhile: ProxyEvent[] = [];
  let isPassing = false;

  function noteFailure(subscription: Subscription, err: unknown): void {
    subscription.errors += 1;
    const now = clock.monotonic();
    if (now - subscription.loggedAt < logEveryMs) return;
    subscription.loggedAt = now;
    log.error({ err, sink: subscription.name, errors: subscription.errors }, "an event sink failed");
  }

  function pass(event: ProxyEvent): void {
    for (const subscription of subscriptions) {
      try {
        subscription.sink(event);
      } catch (error) {
        noteFailure(subscription, error);
      }
    }
  }

  return {
    emit(event) {
      if (isPassing) {
        emittedMeanwhile.push(event);
        return;
      }
      isPassing = true;
      pass(event);
      for (let next = emittedMeanwhile.shift(); next !== undefined; next = emittedMeanwhile.shift()) pass(next);
      isPassing = false;
    },
    subscribe(name, sink) {
      subscriptions.push({ name, sink, errors: 0, loggedAt: -Infinity });
    },
    sinkErrors: () => new Map(subscriptions.map(({ name, errors }) => [name, errors])),
  };
}
