import { type GcraRate, leftAfter, longestMs } from "../gcra.ts";

/** The buckets of one rule, each a key with what is taken of it, in steps of the rule's rate. */
export interface BucketTable {
  /** What is taken at `nowMs`; 0 for a key that nobody has used. */
  taken(key: string, nowMs: number): number;
  /** Sets what is taken at `nowMs`. */
  set(key: string, nowMs: number, taken: number): void;
  /** Changes the rate. Each bucket is as full as before, as a share of its room. Looks at all buckets. */
  useRate(rate: GcraRate, nowMs: number): void;
  /** Buckets with something taken. Looks at all buckets. */
  size(nowMs: number): number;
  /** Buckets that were forgotten while something was taken, because there were too many. */
  evicted(): number;
}

/** Keys, each with the index of its two figures: what is taken, and the time at which it was counted. */
interface Generation {
  begunAt: number;
  readonly indexes: Map<string, number>;
  figures: Float64Array;
}

/**
 * Keeps two generations. A new key is put into the younger one; when that is older than anything taken lasts, or holds
 * half of `max`, the older one is dropped as a whole and the younger takes its place. So a bucket is forgotten only once
 * nothing is taken of it, unless more than `max` / 2 others are in use. Nothing is deleted singly: a Map keeps what was
 * deleted until it is rebuilt, which takes a tenth of a second for a million keys. The figures are no objects, so that
 * a million keys cost the garbage collector nothing but their names.
 *
 * @param max an even number
 */
export function createBucketTable(max: number, firstRate: GcraRate, nowMs: number): BucketTable {
  let rate = firstRate;
  let young = newGeneration(nowMs);
  let old = newGeneration(nowMs);
  let evicted = 0;
  /** What was looked up last, since a key is looked up to be set. Among a million keys that takes most of the time. */
  let lastKey = "";
  let lastIndex: number | undefined;

  function indexOf(key: string): number | undefined {
    if (lastIndex !== undefined && key === lastKey) return lastIndex;
    lastKey = key;
    lastIndex = young.indexes.get(key);
    return lastIndex;
  }

  function add(key: string, now: number, taken: number): void {
    const isLate = now - young.begunAt >= longestMs(rate);
    if (isLate || young.indexes.size >= max / 2) {
      if (!isLate) evicted += countTaken(old, now);
      old = young;
      young = newGeneration(now);
    }
    const index = young.indexes.size;
    if (2 * index >= young.figures.length) {
      const larger = new Float64Array(2 * young.figures.length);
      larger.set(young.figures);
      young.figures = larger;
    }
    young.indexes.set(key, index);
    lastKey = key;
    lastIndex = index;
    write(young, index, now, taken);
  }

  function leftAt({ figures }: Generation, index: number, now: number): number {
    return leftAfter(rate, figures[2 * index] ?? 0, now - (figures[2 * index + 1] ?? 0));
  }

  function write({ figures }: Generation, index: number, now: number, taken: number): void {
    figures[2 * index] = taken;
    figures[2 * index + 1] = now;
  }

  function countTaken(generation: Generation, now: number): number {
    let count = 0;
    for (let index = 0; index < generation.indexes.size; index++) if (leftAt(generation, index, now) > 0) count++;
    return count;
  }

  return {
    taken(key, now) {
      const index = indexOf(key);
      if (index !== undefined) return leftAt(young, index, now);
      const before = old.indexes.get(key);
      return before === undefined ? 0 : leftAt(old, before, now);
    },
    set(key, now, taken) {
      const index = indexOf(key);
      if (index !== undefined) {
        write(young, index, now, taken);
        return;
      }
      const before = old.indexes.get(key);
      // It moves: what is left behind counts no more.
      if (before !== undefined) write(old, before, now, 0);
      add(key, now, taken);
    },
    useRate(next, now) {
      for (const generation of [young, old]) {
        for (let index = 0; index < generation.indexes.size; index++) {
          const share = leftAt(generation, index, now) / rate.room;
          write(generation, index, now, Math.ceil(share * next.room));
        }
      }
      rate = next;
      young.begunAt = now;
    },
    size: (now) => countTaken(young, now) + countTaken(old, now),
    evicted: () => evicted,
  };
}

function newGeneration(begunAt: number): Generation {
  return { begunAt, indexes: new Map(), figures: new Float64Array(16) };
}
