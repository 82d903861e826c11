import { createWallClock } from "../../lib/wall-clock.ts";
import { type ExportItem, type ExportedRow } from "./usage-export.ts";
import type { UsageLine } from "./usage-queries.ts";
import { emptyRow, type UsageTally } from "./usage-row.ts";

const quarterMs = 900_000;
const hourMs = 4 * quarterMs;

/** Thrown where records of the span that was asked for are missing. */
export class MissingRecords extends Error {
  override readonly name = "MissingRecords";
}

/** More quarters of an hour than a year has. */
const maxQuarters = 40_000;

/**
 * The local hour of a time in ms, as the ISO time of its beginning with the offset: an hour that clocks repeat is two.
 * @param timezone in which hours begin
 */
export function createHourOf(timezone: string): (at: number) => string {
  const clock = createWallClock(timezone);
  /** Readings by quarter of an hour: Intl is slow, and most rows share one. */
  const hours = new Map<number, string>();
  return (at) => {
    // Offsets are multiples of 15 minutes.
    const quarter = Math.floor(at / quarterMs) * quarterMs;
    let text = hours.get(quarter);
    if (text === undefined) {
      if (hours.size >= maxQuarters) hours.clear();
      const reading = clock.readAt(quarter);
      text = isoOfReading(Math.floor(reading / hourMs) * hourMs, reading - quarter);
      hours.set(quarter, text);
    }
    return text;
  };
}

/**
 * The rows of an export as lines of usage with everything that they can be grouped by. What the usage history counts is
 * what comes here, so that the total is the same; what was changed by hand in a group's account is in neither.
 *
 * @param timezone in which hours, days and months begin
 * @throws MissingRecords
 */
export async function* recordedUsage(items: AsyncIterable<ExportItem>, timezone: string): AsyncGenerator<UsageLine> {
  const hourOf = createHourOf(timezone);
  for await (const item of items) {
    if (item.kind === "problem") throw new MissingRecords(item.message);
    if (item.kind === "end") return;
    const { row } = item;
    if (row.user === "") continue;
    const hour = hourOf(row.at);
    const names = {
      user: row.user,
      group: row.group,
      key: row.apiKey,
      provider: row.provider,
      model: modelOf(row),
      hour,
      day: hour.slice(0, 10),
      month: hour.slice(0, 7),
    };
    yield { user: row.user, names, row: tallyOf(row) };
  }
}

/** As the usage history names it. */
export function modelOf({ kind, model }: ExportedRow): string {
  return kind === "request" ? model : "adjust";
}

/** @param offsetMs of the zone at that time */
function isoOfReading(readingMs: number, offsetMs: number): string {
  const offset = new Date(Math.abs(offsetMs)).toISOString().slice(11, 16);
  return `${new Date(readingMs).toISOString().slice(0, 19)}${offsetMs < 0 ? "-" : "+"}${offset}`;
}

/** A row as it counts. */
export function tallyOf({
  kind,
  requests,
  tokens,
  cost,
  currency,
  usage,
  outcome,
  estimated,
}: ExportedRow): UsageTally {
  const amounts = { requests, tokens, cost: cost === 0 ? {} : { [currency]: cost } };
  if (kind === "reset") return { ...emptyRow("", ""), outcomes: { reset: 1 } };
  if (kind === "adjust") return { ...emptyRow("", ""), adjusted: amounts, outcomes: { adjust: 1 } };
  const isSettled = outcome !== "unsettled" && outcome !== "";
  return {
    ...emptyRow("", ""),
    ...amounts,
    ...usage,
    outcomes: isSettled ? { [outcome]: 1 } : {},
    estimated: estimated ? 1 : 0,
    unsettled: isSettled ? 0 : 1,
  };
}
