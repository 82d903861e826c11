import type { TokenUsage } from "../ledger.ts";

/**
 * The price of tokens: nano-units of `currency` per million tokens, each a safe integer >= 0. Frozen; never changes.
 */
export interface Price {
  /**
   * Identifies and describes the price, for the record of a charge: glob, start, "peak" if it applies, and the prices
   * in units for cache hit, cache miss, output and reasoning, such as "deepseek-flash@2026-09-09T16:00:00Z peak
   * 0.04/2/8/8". Contains no quotes, backslashes or line breaks. "" if no price is known.
   */
  readonly id: string;
  readonly currency: string;
  readonly cacheHit: number;
  readonly cacheMiss: number;
  readonly output: number;
  readonly reasoning: number;
}

const perMillion = 1_000_000;

/**
 * The cost of a response, in nano-units of the price's currency. Exact, and rounded once, half up, after the sum: n
 * charges for parts of a response differ by at most n / 2 nano-units from one charge for the whole. Never throws; an
 * amount that is no safe integer becomes Number.MAX_SAFE_INTEGER.
 *
 * @param usage safe integers >= 0. A part counts at most as much as its whole: cached in input, reasoning in output
 */
export function costOf(price: Price, usage: TokenUsage): number {
  const hits = Math.min(usage.cached, usage.input);
  const misses = usage.input - hits;
  const thought = Math.min(usage.reasoning, usage.output);
  const said = usage.output - thought;
  const rounded =
    hits * price.cacheHit + misses * price.cacheMiss + said * price.output + thought * price.reasoning + perMillion / 2;
  // No term is negative: if the sum is a safe integer, so are all terms, and the result is exact.
  if (Number.isSafeInteger(rounded)) return (rounded - (rounded % perMillion)) / perMillion;
  const exact =
    BigInt(hits) * BigInt(price.cacheHit) +
    BigInt(misses) * BigInt(price.cacheMiss) +
    BigInt(said) * BigInt(price.output) +
    BigInt(thought) * BigInt(price.reasoning);
  return Math.min(Number((exact + 500_000n) / 1_000_000n), Number.MAX_SAFE_INTEGER);
}

/**
 * The maximum cost of so many tokens, whatever part of the prompt comes from the cache and whatever part of the output
 * is reasoning. For reserving it before the request is sent.
 */
export function highestCostOf(price: Price, input: number, output: number): number {
  const cached = price.cacheHit > price.cacheMiss ? input : 0;
  const reasoning = price.reasoning > price.output ? output : 0;
  return costOf(price, { input, cached, output, reasoning });
}
