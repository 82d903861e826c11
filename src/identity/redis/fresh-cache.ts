import type { Awaitable } from "../../lib/awaitable.ts";
import { createGenerationMap } from "../../lib/generation-map.ts";

/** What was read from Redis, trusted for a short time. A value that does not exist is cached as well. */
export interface FreshCache<T> {
  /** The value, at once while it may be trusted. Rejects if it can't be read; see `trustedAwayMs`. */
  get(key: string): Awaitable<T | undefined>;
  /** What is cached of it and may be trusted; undefined if nothing is. */
  peek(key: string): { readonly value: T | undefined } | undefined;
  /** Reads the value now, whatever is cached; joins a read that began after the last known change. */
  renew(key: string): Promise<T | undefined>;
  /** From now on the value must be read again. */
  forget(key: string): void;
  forgetAll(): void;
}

export interface FreshCacheOptions<T> {
  /** @param previous what was read before, perhaps long ago: if it is still the same, the same object is to be returned */
  readonly read: (key: string, previous: T | undefined) => Promise<T | undefined>;
  /** How long a value is trusted after its read began, in ms; default identityAgeMs. */
  readonly maxAgeMs?: (value: T | undefined) => number;
  /**
   * How old a value may be, in ms, where it cannot be read: 0 while Redis answers, or where nothing may be served without
   * it. One that is known to have changed is not given out even then. Default: 0.
   */
  readonly trustedAwayMs?: (() => number) | undefined;
  /** Existing values kept, even. */
  readonly max?: number;
  /** Monotonic ms. */
  readonly monotonic: () => number;
}

interface Entry<T> {
  readonly value: T | undefined;
  /** When its read began; -Infinity if it has changed since. */
  readAt: number;
  readonly generation: number;
}

/** Trust ends so long after a change elsewhere at the latest, even where nobody tells this process of it. */
const identityAgeMs = 900;
const defaultMax = 50_000;
/** Names that do not exist. They come from outside, and must not displace those that do. */
const maxMissing = 10_000;
/** Unused entries are dropped after one to two of these. */
const lifeMs = 60_000;
/** From this share of its age on a value that is used is read again beside its use, so that nobody waits for it. */
const renewAt = 0.6;

export function createFreshCache<T>(options: FreshCacheOptions<T>): FreshCache<T> {
  const { maxAgeMs = () => identityAgeMs, trustedAwayMs = () => 0, max = defaultMax, monotonic } = options;
  const found = createGenerationMap<Entry<T>>(max, () => lifeMs, monotonic);
  const missing = createGenerationMap<Entry<T>>(maxMissing, () => lifeMs, monotonic);
  const reading = new Map<string, Promise<T | undefined>>();
  let generation = 0;

  const entryOf = (key: string): Entry<T> | undefined => found.get(key) ?? missing.get(key);

  function renew(key: string): Promise<T | undefined> {
    const running = reading.get(key);
    if (running !== undefined) return running;
    const [readAt, begun] = [monotonic(), generation];
    const read: Promise<T | undefined> = options.read(key, found.get(key)?.value).then(
      (value) => {
        if (reading.get(key) === read) {
          reading.delete(key);
          keep(key, { value, readAt, generation: begun });
        }
        return value;
      },
      (error: unknown) => {
        if (reading.get(key) === read) reading.delete(key);
        throw error;
      },
    );
    reading.set(key, read);
    return read;
  }

  function keep(key: string, entry: Entry<T>): void {
    const [to, from] = entry.value === undefined ? [missing, found] : [found, missing];
    from.delete(key);
    to.set(key, entry);
  }

  function peek(key: string): Entry<T> | undefined {
    const entry = entryOf(key);
    return entry?.generation === generation && monotonic() - entry.readAt < maxAgeMs(entry.value) ? entry : undefined;
  }

  /** One that may be used because Redis is away. */
  function older(key: string): T | undefined {
    const ageMs = trustedAwayMs();
    const entry = ageMs === 0 ? undefined : found.get(key);
    return entry !== undefined && monotonic() - entry.readAt < ageMs ? entry.value : undefined;
  }

  async function renewOrOlder(key: string): Promise<T | undefined> {
    try {
      return await renew(key);
    } catch (error) {
      // Only now is it known that Redis is away.
      const value = older(key);
      if (value === undefined) throw error;
      return value;
    }
  }

  return {
    get(key) {
      const entry = peek(key);
      if (entry === undefined) return older(key) ?? renewOrOlder(key);
      if (monotonic() - entry.readAt >= maxAgeMs(entry.value) * renewAt) renew(key).catch(() => undefined);
      return entry.value;
    },
    peek,
    renew,
    forget(key) {
      const entry = entryOf(key);
      if (entry !== undefined) entry.readAt = -Infinity;
      // Its answer may be older than the change. Those who wait for it asked before.
      reading.delete(key);
    },
    forgetAll() {
      generation++;
      reading.clear();
    },
  };
}
