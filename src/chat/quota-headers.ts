import type { BucketState } from "../quota/ledger.ts";

/**
 * Adds to headers, a list of names and values in turn: X-Quota-Remaining, X-Quota-Reset (ISO 8601, absent where the bucket never resets) and, from `warnPercent` of use,
 * X-Quota-Warning: all for the bucket that is nearest to its end. Costs count in units of their currency.
 */
export function addQuotaHeaders(
  to: string[],
  buckets: readonly BucketState[],
  warnPercent: number,
  isoTime: (ms: number) => string,
): void {
  let tightest: BucketState | null = null;
  let highest = -1;
  for (const bucket of buckets) {
    const share = shareUsed(bucket);
    if (share > highest) {
      highest = share;
      tightest = bucket;
    }
  }
  if (tightest === null) return;
  const { limit, remaining, resetAt } = tightest;
  to.push("x-quota-remaining", String(limit.metric === "cost" ? remaining / 1e9 : remaining));
  if (resetAt !== null) to.push("x-quota-reset", isoTime(resetAt));
  const percent = Math.floor(highest * 100);
  if (percent >= warnPercent) to.push("x-quota-warning", `${percent}% of ${limit.metric} per ${limit.per} used`);
}

function shareUsed({ limit, remaining }: BucketState): number {
  return limit.max === 0 ? 1 : (limit.max - remaining) / limit.max;
}
