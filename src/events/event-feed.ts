import type { Clock } from "../lib/clock.ts";
import type { Sink } from "./bus.ts";
import type { EventType } from "./catalogue.ts";
import type { Envelopes } from "./envelope.ts";

/** An event as readers of the feed get it. */
export interface FeedEvent {
  readonly id: string;
  readonly type: EventType;
  readonly user: string | null;
  readonly group: string | null;
  readonly requestId: string | null;
  /** The envelope as JSON. */
  readonly text: string;
}

/** A place in the feed that moves on as events are read. */
export interface FeedReader {
  /** What `open` takes to begin at the same place again; undefined where the reader begins with a gap. */
  readonly openedAfter: string | undefined;
  /**
   * The next event; "gap" where events between were forgotten before they were read: `missed` has their number then;
   * undefined if there is none yet.
   */
  next(): FeedEvent | "gap" | undefined;
  /** How many events the latest gap was long; null if nobody knows. */
  readonly missed: number | null;
  close(): void;
}

/** The latest events, for those who follow them. */
export interface EventFeed {
  readonly sink: Sink;
  /**
   * Opens a reader, which starts after the event with the id `after`, or else at the next event. If that event is no
   * longer there, it starts with a gap of unknown length, then at the oldest event that is.
   *
   * @param onEvent called when there is a new event; must not throw
   */
  open(after: string | undefined, onEvent: () => void): FeedReader;
  /** For metrics: events that were forgotten before a reader had read them. */
  stats(): { readonly readers: number; readonly kept: number; readonly dropped: number };
}

/** How long events are kept for those who have followed them, in ms: they may come back for what they have missed. */
const keepMs = 600_000;
/** Average size of an event, in UTF-16 units, beyond which fewer are kept. */
const averageLength = 2048;

/**
 * Keeps the latest `size` events while somebody follows them, and for ten minutes after: most of the time nobody does,
 * and events that stay in memory cost the garbage collector more than all other sinks take. Readers hold a place and no
 * events: a slow one costs nothing, and loses only what the feed forgets meanwhile.
 */
export function createEventFeed(options: {
  readonly size: number;
  readonly envelopes: Envelopes;
  readonly clock: Clock;
  /** Makes ids of places that no event stands before. */
  readonly newId: () => string;
}): EventFeed {
  const { envelopes, clock, newId } = options;
  const size = Math.max(1, options.size);
  const maxLength = size * averageLength;
  const ring: FeedEvent[] = [];
  const readers = new Set<() => void>();
  /** Numbers of the oldest event and of the next one. The event with the number n is at n % size. */
  let first = 0;
  let end = 0;
  let length = 0;
  let dropped = 0;
  /** Monotonic ms until which events are kept although nobody follows them. */
  let keptUntil = -Infinity;
  /** The latest place at which a reader began while no event was kept. */
  let emptyPlace = { id: "", number: -1 };

  function at(number: number): FeedEvent | undefined {
    return ring[number % size];
  }

  function add(event: FeedEvent): void {
    while (end - first >= size || (end > first && length + event.text.length > maxLength)) {
      length -= at(first)?.text.length ?? 0;
      first += 1;
    }
    ring[end % size] = event;
    length += event.text.length;
    end += 1;
  }

  /** The id that stands for the end of the feed. */
  function endId(): string {
    const latest = end > first ? at(end - 1) : undefined;
    if (latest !== undefined) return latest.id;
    if (emptyPlace.number !== end) emptyPlace = { id: newId(), number: end };
    return emptyPlace.id;
  }

  /** The number after the event's; undefined if it is no longer there. */
  function placeAfter(id: string): number | undefined {
    if (id === emptyPlace.id && emptyPlace.number >= first) return emptyPlace.number;
    for (let number = end - 1; number >= first; number -= 1) if (at(number)?.id === id) return number + 1;
    return undefined;
  }

  function forgetAll(): void {
    ring.length = 0;
    first = end;
    length = 0;
  }

  return {
    sink(event) {
      if (readers.size === 0 && clock.monotonic() >= keptUntil) {
        if (first < end) forgetAll();
        return;
      }
      // A feed of no size still passes on what happens, one event at a time.
      if (options.size === 0 && readers.size === 0) return;
      const { id, type, user, group, request_id: requestId } = envelopes.of(event);
      add({ id, type, user, group, requestId, text: envelopes.textOf(event) });
      for (const notify of readers) notify();
    },
    open(after, onEvent) {
      const place = after === undefined ? end : placeAfter(after);
      let next = place ?? first;
      let missed: number | null = null;
      let isLost = place === undefined;
      readers.add(onEvent);
      return {
        openedAfter: after === undefined ? endId() : place === undefined ? undefined : after,
        next() {
          if (isLost) {
            isLost = false;
            return "gap";
          }
          if (next < first) {
            missed = first - next;
            dropped += missed;
            next = first;
            return "gap";
          }
          if (next >= end) return undefined;
          const event = at(next);
          next += 1;
          return event;
        },
        get missed() {
          return missed;
        },
        close() {
          readers.delete(onEvent);
          keptUntil = clock.monotonic() + keepMs;
        },
      };
    },
    stats: () => ({ readers: readers.size, kept: end - first, dropped }),
  };
}
