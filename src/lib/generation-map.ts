/** A bounded map that keeps the latest entries without searching for the oldest. */
export interface GenerationMap<V> {
  get(key: string): V | undefined;
  /** Sets a key, which makes it the newest. */
  set(key: string, value: V): void;
  delete(key: string): void;
  /** Roughly the oldest first. */
  values(): Iterable<V>;
  readonly size: number;
}

/**
 * Keeps two generations: new entries go into the younger one, and when that holds half of `max`, or was started
 * `lifeMs` ago, the older one is dropped as a whole and the younger one takes its place. So the latest max / 2 keys are
 * always present, never more than `max`, and a key is kept for `lifeMs` unless others evict it. Each step takes
 * constant time, unlike deleting the oldest key of a Map: finding it skips all keys deleted before.
 *
 * @param max an even number, or Infinity
 * @param lifeMs read at every use
 * @param now ms; only differences matter
 */
export function createGenerationMap<V>(max: number, lifeMs: () => number, now: () => number): GenerationMap<V> {
  let young = new Map<string, V>();
  let old = new Map<string, V>();
  let begunAt = now();

  return {
    get: (key) => young.get(key) ?? old.get(key),
    set(key, value) {
      const isLate = now() - begunAt >= lifeMs();
      if (isLate || (young.size >= max / 2 && !young.has(key))) {
        old = young;
        young = new Map();
        begunAt = now();
      }
      old.delete(key);
      // Deleted first, so that it becomes the last of its generation too.
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
 * Caches the results of `compute` for up to `max` keys; beyond that the oldest is evicted and recomputed if needed
 * again. For keys that come from outside, in any number.
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
