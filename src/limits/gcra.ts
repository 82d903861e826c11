/**
 * The generic cell rate algorithm, as a leaky bucket in whole numbers: a bucket is what has been taken and has not
 * flowed off yet. That and the time it was counted at are its whole state. No timer empties it and no lock guards it.
 *
 * One unit is `cost` steps, chosen so that a whole number of steps flows off each ms: nothing is ever rounded, so a
 * bucket allows exactly what its rate does. All figures stay below 2^53.
 */
export interface GcraRate {
  /** Steps of one unit. */
  readonly cost: number;
  /** Steps that flow off each ms. */
  readonly speed: number;
  /** Steps that a bucket holds: its burst. */
  readonly room: number;
}

/** So many steps a unit has at least, so that a share of a unit can be taken too. */
const leastCost = 1000;

/**
 * @param max units in each `perMs`; both whole, 1 to 1e9 and 1 to 1e12
 * @param burst units, 1 to 1e9; at least one unit fits
 */
export function gcraRate(max: number, perMs: number, burst: number): GcraRate {
  const common = greatestDivisor(max, perMs);
  const scale = perMs / common < leastCost ? leastCost : 1;
  const cost = (perMs / common) * scale;
  return { cost, speed: (max / common) * scale, room: Math.max(cost, Math.round(burst * cost)) };
}

/** What is left `elapsedMs` later of what had been taken. */
export function leftAfter({ speed }: GcraRate, taken: number, elapsedMs: number): number {
  // The product is not exact beyond 2^53, which is more than any bucket can hold.
  return Math.max(0, taken - elapsedMs * speed);
}

/**
 * ms until `steps` more fit beside what is taken; 0 if they fit now. For more steps than fit at all: until the bucket
 * is empty, at least 1.
 */
export function waitMs({ speed, room }: GcraRate, taken: number, steps: number): number {
  if (steps > room) return Math.max(1, Math.ceil(taken / speed));
  return Math.max(0, Math.ceil((taken - (room - steps)) / speed));
}

/**
 * What is taken after `steps` more were used than the request had taken. What was used beyond the room is paid off
 * later, but for one more burst at most, so that nobody is locked out for longer than two bursts take.
 */
export function overused({ room }: GcraRate, taken: number, steps: number): number {
  return Math.min(2 * room, taken + steps);
}

/** What had flowed off already is put back at so many times the rate at the most. docs/adr/0012-exact-rates.md says why. */
const putBackRates = 59;

/**
 * What has been put back of what had flowed off already is a bucket of its own, at this rate. It holds one burst: what
 * does not fit is not put back. Otherwise requests that have held their bounds for long, and end together without having
 * used them, would allow a burst each at that moment.
 */
export function putBackRate({ cost, speed, room }: GcraRate): GcraRate {
  return { cost, speed: putBackRates * speed, room };
}

/**
 * What counts as not flowed off yet, `elapsedMs` later, of what one request has taken: it can be put back whole. It
 * fades faster than the bucket drains, by all that can leave the bucket: so what all requests together can put back
 * whole is never more than what is taken and what was put back lately.
 */
export function ownLeft({ speed }: GcraRate, steps: number, elapsedMs: number): number {
  return Math.max(0, steps - elapsedMs * (1 + putBackRates) * speed);
}

/** ms after which nothing is left of the most that can be taken. */
export function longestMs({ speed, room }: GcraRate): number {
  return Math.ceil((2 * room) / speed);
}

function greatestDivisor(a: number, b: number): number {
  while (b > 0) [a, b] = [b, a % b];
  return a;
}
