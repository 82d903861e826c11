import { addAmounts } from "../lib/money.ts";
import type { Charge, Metric } from "./ledger.ts";

/** Sums of requests, tokens and cost per currency. Never below 0. */
export class Amounts {
  requests = 0;
  tokens = 0;
  /** Nano-units by currency; contains only currencies that are or were above 0. */
  readonly costs = new Map<string, number>();

  /** One of the amounts; cost in nano-units of `currency`. */
  of(metric: Metric, currency: string | undefined): number {
    if (metric === "requests") return this.requests;
    if (metric === "tokens") return this.tokens;
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
