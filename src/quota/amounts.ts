import { addAmounts, isAmount } from "../lib/money.ts";
import type { Adjusted, Charge, Delta } from "./ledger.ts";
import { type CountMetric, forEachMetric, type Metric, metricNames } from "./metrics.ts";

/*
 * The arithmetic of charges: the one place that spells the metrics out, field by field, because every charge comes
 * through here some twenty times. A test goes through all metrics.
 */

/** Sums of each metric; cost per currency. Never below 0. */
export class Amounts implements Record<CountMetric, number> {
  requests = 0;
  tokens = 0;
  /** Nano-units by currency; contains only currencies that are or were above 0. */
  readonly costs = new Map<string, number>();

  /** One of the amounts; cost in nano-units of `currency`. */
  of(metric: Metric, currency: string | undefined): number {
    if (metric !== "cost") return this[metric];
    return currency === undefined ? 0 : (this.costs.get(currency) ?? 0);
  }

  add({ requests, tokens, cost, currency }: Charge): void {
    this.requests = addAmounts(this.requests, requests);
    this.tokens = addAmounts(this.tokens, tokens);
    if (cost > 0) this.costs.set(currency, addAmounts(this.costs.get(currency) ?? 0, cost));
  }

  subtract({ requests, tokens, cost, currency }: Charge): void {
    this.requests = Math.max(0, this.requests - requests);
    this.tokens = Math.max(0, this.tokens - tokens);
    const before = this.costs.get(currency) ?? 0;
    if (before > 0 && cost > 0) this.costs.set(currency, Math.max(0, before - cost));
  }

  /** Puts one charge in the place of another, without the sum of both in between: that might be too large. */
  replace(first: Charge, final: Charge): void {
    this.requests = Math.max(0, addAmounts(this.requests, final.requests - first.requests));
    this.tokens = Math.max(0, addAmounts(this.tokens, final.tokens - first.tokens));
    const moved = first.currency === final.currency ? final.cost - first.cost : final.cost;
    const before = this.costs.get(final.currency);
    const cost = Math.max(0, addAmounts(before ?? 0, moved));
    if (cost > 0 || before !== undefined) this.costs.set(final.currency, cost);
    if (first.currency !== final.currency) this.subtract({ ...first, requests: 0, tokens: 0 });
  }
}

/** A charge of nothing. */
export function noCharge(currency: string): Charge {
  return { requests: 0, tokens: 0, cost: 0, currency };
}

/** Sums that may fall below 0, for the usage history; cost in nano-units by currency. */
export interface Sums extends Record<CountMetric, number> {
  readonly cost: Record<string, number>;
}

/** Sums of nothing. */
export function noSums(): Sums {
  return { requests: 0, tokens: 0, cost: {} };
}

/** Adds a charge to sums, or with -1 takes it away. Saturates, as the counters of periods do. */
export function addCharge(to: Sums, { requests, tokens, cost, currency }: Charge, sign: 1 | -1): void {
  to.requests = addSaturated(to.requests, sign * requests);
  to.tokens = addSaturated(to.tokens, sign * tokens);
  addCost(to, currency, sign * cost);
}

/** Adds sums to others. */
export function addSums(to: Sums, { requests, tokens, cost }: Readonly<Sums> | Adjusted): void {
  to.requests = addSaturated(to.requests, requests);
  to.tokens = addSaturated(to.tokens, tokens);
  for (const [currency, nano] of Object.entries(cost)) addCost(to, currency, nano);
}

/** Adds two numbers within the safe integers. */
export function addSaturated(a: number, b: number): number {
  return Math.max(-Number.MAX_SAFE_INTEGER, Math.min(a + b, Number.MAX_SAFE_INTEGER));
}

function addCost({ cost }: Sums, currency: string, nano: number): void {
  if (nano !== 0) cost[currency] = addSaturated(cost[currency] ?? 0, nano);
}

/** Whether all parts of a charge are amounts. */
export function isCharge({ requests, tokens, cost }: Charge): boolean {
  return isAmount(requests) && isAmount(tokens) && isAmount(cost);
}

/** Whether a charge is one of nothing. */
export function isNothing({ requests, tokens, cost }: Charge): boolean {
  return requests === 0 && tokens === 0 && cost === 0;
}

/** The rest of a hold after `charge` has been taken from it. */
export function restOf(held: Charge, charge: Charge): Charge {
  const cost = held.currency === charge.currency ? Math.max(0, held.cost - charge.cost) : held.cost;
  return {
    requests: Math.max(0, held.requests - charge.requests),
    tokens: Math.max(0, held.tokens - charge.tokens),
    cost,
    currency: held.currency,
  };
}

/** The sum of two charges in the same currency. */
export function sumOf(held: Charge, extra: Charge): Charge {
  return {
    requests: addAmounts(held.requests, extra.requests),
    tokens: addAmounts(held.tokens, extra.tokens),
    cost: addAmounts(held.cost, extra.cost),
    currency: held.currency,
  };
}

/** The positive (1) or negative part of a delta, as amounts. Throws RangeError for amounts or a currency that are none. */
export function partOf(delta: Delta, sign: 1 | -1): Charge {
  const { currency } = delta;
  const charge = { ...forEachMetric(metricNames, (metric) => Math.max(0, sign * delta[metric])), currency };
  if (!isCharge(charge) || !/^[A-Z]{3}$/.test(currency)) throw new RangeError("not an amount in a currency");
  return charge;
}
