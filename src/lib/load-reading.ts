import { readdir } from "node:fs/promises";
import { getHeapStatistics } from "node:v8";
import { openFileLimit } from "./files/open-file-limit.ts";

/** How loaded this process is. */
export interface LoadReading {
  /** How much later than asked the event loop ran a timer, in ms. */
  readonly loopDelayMs: number;
  /** Part of the heap's limit that is in use, 0 to 1. */
  readonly heapShare: number;
  /** Part of the limit of open files that is in use, 0 to 1; 0 where that is unknown. */
  readonly descriptorShare: number;
}

/** Reads the slower facts once in so many readings. */
const heapEvery = 40;
const descriptorsEvery = 80;

/**
 * A function to be called every `everyMs` by a timer, whose delay is that of the event loop. The heap is looked at once
 * a second if that is every 25 ms, and the descriptors, which are counted in /proc while other work goes on, every two.
 *
 * @param monotonic ms
 */
export function createLoadReading(everyMs: number, monotonic: () => number): () => LoadReading {
  const limit = openFileLimit();
  let last = monotonic();
  let count = 0;
  let heapShare = 0;
  let descriptorShare = 0;

  function readDescriptors(most: number): void {
    readdir("/proc/self/fd").then(
      ({ length }) => {
        descriptorShare = length / most;
      },
      () => {
        descriptorShare = 0;
      },
    );
  }

  return () => {
    const at = monotonic();
    const loopDelayMs = Math.max(0, at - last - everyMs);
    last = at;
    if (count % heapEvery === 0) {
      const { used_heap_size, heap_size_limit } = getHeapStatistics();
      heapShare = used_heap_size / heap_size_limit;
    }
    if (count % descriptorsEvery === 0 && limit !== undefined) readDescriptors(limit);
    count += 1;
    return { loopDelayMs, heapShare, descriptorShare };
  };
}
