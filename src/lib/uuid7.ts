/** Random bytes are drawn so many at a time. */
const poolBytes = 4096;
const maxCounter = 0xfff;
/** A clock that goes back by more than this was wrong before, and is followed. */
const maxStepBackMs = 10_000;

/**
 * Creates a function that makes UUIDs of version 7 (RFC 9562): their text sorts in the order in which they were made,
 * unless the clock is set back by more than ten seconds. Within a millisecond, a counter keeps that order.
 *
 * @param now ms since the epoch
 * @param fill fills an array with random bytes
 */
export function createUuid7(now: () => number, fill: (bytes: Uint8Array) => unknown): () => string {
  const pool = Buffer.alloc(poolBytes);
  let digits = "";
  let used = 0;
  let time = 0;
  let counter = 0;
  let timeText = "";

  function randomDigits(count: number): string {
    if (used + count > digits.length) {
      fill(pool);
      digits = pool.toString("hex");
      used = 0;
    }
    used += count;
    return digits.slice(used - count, used);
  }

  function setTime(next: number): void {
    time = next;
    // Leaves half of the range to count up in.
    counter = Number.parseInt(randomDigits(3), 16) & (maxCounter >> 1);
    const hex = time.toString(16).padStart(12, "0");
    timeText = `${hex.slice(0, 8)}-${hex.slice(8)}-7`;
  }

  return () => {
    const at = Math.floor(now());
    if (at > time || at < time - maxStepBackMs) setTime(at);
    else if (counter < maxCounter) counter += 1;
    else setTime(time + 1);
    const variant = "89ab".charAt(Number.parseInt(randomDigits(1), 16) & 3);
    return `${timeText}${counter.toString(16).padStart(3, "0")}-${variant}${randomDigits(3)}-${randomDigits(12)}`;
  };
}
