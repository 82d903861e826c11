/** A map that holds what was set last, without looking for what is oldest. */
export interface GenerationMap<V> {
  get(key: string): V | undefined;
  /** Sets a key, which makes it the youngest. */
  set(key: string, value: V): void;
  delete(key: string): void;
  /** Roughly the oldest first. */
  values(): Iterable<V>;
  readonly size: number;
}

/**
 * Keeps two generations: what is set goes into the younger one, and when that holds half of `max`, or has been begun
 * `lifeMs` ago, the older one is dropped as a whole and the younger one takes its place. So the last max / 2 keys are
 * always there, never more than `max`, and a key is there for `lifeMs` unless others push it out. Each step takes the
 * same time, which deleting the oldest key of a Map does not: finding it walks past all that were deleted before.
 *
 * @param max an even number, or Infinity
 * @param now ms; only differences matter
 */
export function createGenerationMap<V>(max: number, lifeMs: number, now: () => number): GenerationMap<V> {
  let young = new Map<string, V>();
  let old = new Map<string, V>();
  let begunAt = now();

  return {
    get: (key) => young.get(key) ?? old.get(key),
    set(key, value) {
      const isLate = now() - begunAt >= lifeMs;
      if (isLate || (young.size >= max / 2 && !young.has(key))) {
        old = young;
        young = new Map();
        begunAt = now();
      }
      old.delete(key);
      // Deleted first, so that it is the last of its generation too.
      young.delete(key);
      young.set(key, value);
    },
    delete(key) {
      young.delete(key);
      old.delete(key);
    },
    *values() {
      yield* old.values();
      yield* young.values();
    },
    get size() {
      return young.size + old.size;
    },
  };
}

/**
 * Remembers what `compute` has made for up to `max` keys; past that the oldest is forgotten and made anew when asked
 * for again. For keys that come from outside, of which there may be any number.
 */
export function boundedMemo<V extends object | number>(max: number, compute: (key: string) => V): (key: string) => V {
  const known = new Map<string, V>();
  return (key) => {
    const found = known.get(key);
    if (found !== undefined) return found;
    const made = compute(key);
    if (known.size >= max) {
      for (const oldest of known.keys()) {
        known.delete(oldest);
        break;
      }
    }
    known.set(key, made);
    return made;
  };
}
