const poolSize = 4096;
const maxCounter = 0xfff;
/** A clock that goes back by more than this was wrong before, and is followed. */
const maxStepBackMs = 10_000;
const hexOf = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

/**
 * Creates a function that makes UUIDs of version 7 (RFC 9562): their text sorts in the order in which they were made,
 * unless the clock is set back by more than ten seconds. Within a millisecond, a counter keeps that order.
 *
 * @param now ms since the epoch
 * @param fill fills an array with random bytes
 */
export function createUuid7(now: () => number, fill: (bytes: Uint8Array) => unknown): () => string {
  const pool = new Uint8Array(poolSize);
  let used = poolSize;
  let time = 0;
  let counter = 0;
  let timeText = "";

  function randomHex(): string {
    if (used >= poolSize) {
      fill(pool);
      used = 0;
    }
    return hexOf[pool[used++] ?? 0] ?? "00";
  }

  function setTime(next: number): void {
    time = next;
    // Leaves half of the range to count up in.
    counter = Number.parseInt(randomHex() + randomHex(), 16) & (maxCounter >> 1);
    const hex = time.toString(16).padStart(12, "0");
    timeText = `${hex.slice(0, 8)}-${hex.slice(8)}-7`;
  }

  return () => {
    const at = Math.floor(now());
    if (at > time || at < time - maxStepBackMs) setTime(at);
    else if (counter < maxCounter) counter += 1;
    else setTime(time + 1);
    const variant = hexOf[(Number.parseInt(randomHex(), 16) & 0x3f) | 0x80] ?? "80";
    const node = randomHex() + randomHex() + randomHex() + randomHex() + randomHex() + randomHex();
    return `${timeText}${counter.toString(16).padStart(3, "0")}-${variant}${randomHex()}-${node}`;
  };
}
