/** Who asks for more is asked again after this time, in ms: what was said may be wrong. */
const longestRetryAfterMs = 600_000;

/**
 * How long a server asks to wait before a retry, in ms; undefined if it doesn't say. OpenAI's `retry-after-ms` is
 * more precise than Retry-After, which is seconds or one of three forms of a date (RFC 9110, 10.2.3 and 5.6.7). Of
 * several values the longest counts.
 * @param now wall-clock ms, for dates
 */
export function readRetryAfter(
  headers: Readonly<Record<string, string | string[] | undefined>>,
  now: number,
): number | undefined {
  const ms =
    longest(headers["retry-after-ms"], readNumber) ??
    longest(headers["retry-after"], (text) => {
      const seconds = readNumber(text);
      return seconds === undefined ? readDate(text, now) : seconds * 1000;
    });
  return ms === undefined ? undefined : Math.min(ms, longestRetryAfterMs);
}

function longest(values: string | string[] | undefined, read: (text: string) => number | undefined) {
  const list = typeof values === "string" ? [values] : (values ?? []);
  const found = list.map((text) => read(text.trim())).filter((ms) => ms !== undefined);
  return found.length === 0 ? undefined : Math.max(...found);
}

/** Programs write fractions with 20 digits and more: 1/997 is 0.0010030090270812437. */
function readNumber(text: string): number | undefined {
  return /^\d{1,40}(?:\.\d{1,40})?$/.test(text) ? Number(text) : undefined;
}

/** ms from now until the date; undefined if it is not a date, or in the past. */
function readDate(text: string, now: number): number | undefined {
  if (!/^[a-z]{3,9},? /i.test(text)) return undefined;
  // The third form, asctime, has no zone: it is GMT as well.
  const ms = Date.parse(/GMT|UTC|[+-]\d{4}$/i.test(text) ? text : `${text} GMT`) - now;
  return ms >= 0 ? ms : undefined;
}
