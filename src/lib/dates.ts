const dayMs = 86_400_000;

/**
 * The date `days` days later, or earlier if negative; the first or the last one that has a year of four digits instead of
 * any beyond it.
 *
 * @param date YYYY-MM-DD, of a calendar without a time zone
 */
export function shiftDate(date: string, days: number): string {
  const at = Math.min(Math.max(Date.parse(date) + days * dayMs, firstDay), lastDay);
  return new Date(at).toISOString().slice(0, 10);
}

const firstDay = Date.parse("0000-01-01");
const lastDay = Date.parse("9999-12-31");

/** The number of days from one date to another, both YYYY-MM-DD; 0 if they are equal. */
export function daysBetween(from: string, to: string): number {
  return (Date.parse(to) - Date.parse(from)) / dayMs;
}

/**
 * Creates a function that formats ms since the epoch as ISO 8601 (UTC, with ms), like Date.toISOString. It caches the
 * text of the latest second, since log lines come in order: a tenth of the time of toISOString.
 */
export function createIsoTime(): (ms: number) => string {
  let second = NaN;
  let prefix = "";
  return (ms) => {
    const whole = Math.floor(ms);
    const secondOfMs = Math.floor(whole / 1000);
    if (secondOfMs !== second) {
      prefix = new Date(secondOfMs * 1000).toISOString().slice(0, -4);
      second = secondOfMs;
    }
    const rest = whole - secondOfMs * 1000;
    return `${prefix}${rest < 10 ? "00" : rest < 100 ? "0" : ""}${rest}Z`;
  };
}
