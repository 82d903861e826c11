import type { QuotaLimit } from "./ledger.ts";

/** Limits times a factor. */
export type ScaleLimits = (limits: readonly QuotaLimit[], factor: number) => readonly QuotaLimit[];

/**
 * Creates a function that multiplies a user's own limits by a factor above 0, rounding down, but not to nothing; those
 * of API keys and groups stay. For the same limits and factor it returns the same array.
 */
export function createScaleLimits(): ScaleLimits {
  const known = new WeakMap<readonly QuotaLimit[], Map<number, readonly QuotaLimit[]>>();
  return (limits, factor) => {
    if (factor === 1) return limits;
    let byFactor = known.get(limits);
    if (byFactor === undefined) known.set(limits, (byFactor = new Map<number, readonly QuotaLimit[]>()));
    let scaled = byFactor.get(factor);
    if (scaled === undefined) {
      // Factors are those of the trust steps, few; a reload makes new limits.
      scaled = limits.map((limit) => (isOwn(limit) ? { ...limit, max: scaledMax(limit.max, factor) } : limit));
      byFactor.set(factor, scaled);
    }
    return scaled;
  };
}

function isOwn({ apiKey, group }: QuotaLimit): boolean {
  return apiKey === undefined && group === undefined;
}

/** A small limit does not become none, and one of 0 stays. */
function scaledMax(max: number, factor: number): number {
  return Math.min(Number.MAX_SAFE_INTEGER, Math.max(Math.min(max, 1), Math.floor(max * factor)));
}
