import type { LineBlock } from "../../lib/journal/line-blocks.ts";

/** A line of the behaviour log, as written: `ts` (ISO, UTC), `event`, and the fields of that event. */
export type BehaviourEvent = Readonly<Record<string, unknown>> & { readonly ts: string; readonly event: string };

/** A filter for events. Times in ms since the epoch. */
export interface BehaviourFilter {
  /** The event's type. */
  readonly type?: string | undefined;
  /** The first instant included. */
  readonly from?: number | undefined;
  /** The first instant excluded. */
  readonly to?: number | undefined;
  /** A further condition on the event. */
  readonly matches?: ((event: BehaviourEvent) => boolean) | undefined;
}

/**
 * ms by which a line may precede an older one: lines are written in the order in which events were emitted, but a
 * failed login has the time of its arrival.
 */
export const disorderMs = 60_000;

/** Every line begins `{"ts":"2026-11-22T10:00:00.000Z","event":"`; so most lines are skipped without parsing. */
const prefix = '{"ts":"';
const timeEnd = prefix.length + "2026-11-22T10:00:00.000Z".length;
const typeStart = timeEnd + '",'.length;

/** The time of a line, in ms since the epoch; NaN if it isn't an event. */
export function timeOfLine(line: string): number {
  return timeAt(line, 0);
}

/**
 * Adds a block's matching events to `events`, newest first, until there are `limit`.
 *
 * @returns "older" if the block reaches back before `from`; the offset in the file of the line at which `limit` was
 * reached; null if the search must continue before the block
 */
export function collectEvents(
  block: LineBlock,
  { type, from = -Infinity, to = Infinity, matches = () => true }: BehaviourFilter,
  events: BehaviourEvent[],
  limit: number,
): number | "older" | null {
  // One character per byte, so that positions are the same in both.
  const text = block.bytes.toString("latin1");
  const wanted = type === undefined ? "" : `"event":${JSON.stringify(type)}`;
  const isTimed = from !== -Infinity || to !== Infinity;
  let end = text.length - 1;
  while (end >= 0) {
    const start = end === 0 ? 0 : text.lastIndexOf("\n", end - 1) + 1;
    const at = isTimed ? timeAt(text, start) : 0;
    if (at < from - disorderMs) return "older";
    const isInTime = !isTimed || (at >= from && at < to);
    if (isInTime && text.startsWith(wanted, start + typeStart)) {
      const event = parseLine(block.bytes.toString("utf8", start, end));
      if (event !== null && matches(event)) events.push(event);
      if (events.length >= limit) return block.start + start;
    }
    end = start - 1;
  }
  return null;
}

function timeAt(text: string, start: number): number {
  return text.startsWith(prefix, start) ? Date.parse(text.slice(start + prefix.length, start + timeEnd)) : NaN;
}

/** Null for a torn line. */
function parseLine(line: string): BehaviourEvent | null {
  try {
    const value: unknown = JSON.parse(line);
    const isEvent = typeof value === "object" && value !== null && "ts" in value && "event" in value;
    return isEvent ? (value as BehaviourEvent) : null;
  } catch {
    return null;
  }
}
