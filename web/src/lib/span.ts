import { shiftDay, today } from "./format.ts";
import { route } from "./router.ts";
import { session } from "./session.ts";

interface Span {
  readonly from: string;
  readonly to: string;
}

/** The first day whose usage is kept. */
export function oldestDay(): string {
  return shiftDay(today(), 1 - (session.value?.usage_days ?? 30));
}

/** The days that the address asks for, else so many up to today; only days of which the proxy has usage. */
export function askedSpan(days: number): Span {
  const { query } = route.value;
  const to = within(dayOf(query.get("to")) ?? today(), oldestDay(), today());
  return { from: within(dayOf(query.get("from")) ?? shiftDay(to, 1 - days), oldestDay(), to), to };
}

/** A day that the calendar has; an address may hold any text. */
function dayOf(text: string | null): string | undefined {
  if (text === null || !/^\d{4}-\d\d-\d\d$/.test(text) || Number.isNaN(Date.parse(text))) return undefined;
  return shiftDay(text, 0) === text ? text : undefined;
}

function within(day: string, first: string, last: string): string {
  if (day < first) return first;
  return day > last ? last : day;
}
