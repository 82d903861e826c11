const dayMs = 86_400_000;

/**
 * The date some days later, or earlier where `days` is negative.
 *
 * @param date YYYY-MM-DD, of any calendar that has no time zone
 */
export function shiftDate(date: string, days: number): string {
  return new Date(Date.parse(date) + days * dayMs).toISOString().slice(0, 10);
}

/** How many days there are from one date to another, both YYYY-MM-DD; 0 where they are the same. */
export function daysBetween(from: string, to: string): number {
  return (Date.parse(to) - Date.parse(from)) / dayMs;
}
