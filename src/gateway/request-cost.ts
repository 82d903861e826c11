import type { Config } from "../config/schema.ts";
import type { ParsedRequest } from "./formats/api-format.ts";
import type { Provider } from "../providers/provider.ts";
import type { Route } from "../providers/router.ts";
import type { ResponseReport } from "../providers/stream/response-reader.ts";
import { countable } from "../providers/stream/usage.ts";
import type { Charge, Hold, Settlement, TokenUsage } from "../quota/ledger.ts";
import type { Outcome } from "../quota/outcomes.ts";
import { noCharge } from "../quota/amounts.ts";
import type { Metric } from "../quota/metrics.ts";
import { costOf, createPricing, highestCostOf, type Price, type Pricing } from "../quota/pricing/pricing.ts";

const noUsage: TokenUsage = { input: 0, cached: 0, output: 0, reasoning: 0 };

/** What one request costs, at each of its stages. The prices are those in force when it arrived. */
export class RequestCost {
  /** Output tokens that the upper bound allows for. */
  readonly reservedOutput: number;
  /** Choices that were asked for. */
  readonly choices: number;
  /** Whether the request sets max_tokens, so that the provider keeps the output within the upper bound. */
  readonly hasMaxTokens: boolean;
  readonly #pricingPolicy: PricingPolicy;
  readonly #route: Route;
  readonly #at: number;
  readonly #bytes: number;
  readonly #reservedInput: number;
  readonly #weight: number;
  /** The highest price in each currency other than that of the first provider. */
  readonly #otherPrices: readonly Price[];
  #price: Price;
  /** The provider that answers, once commit() has been called. */
  #provider: string | undefined;

  /** @param at ms since the epoch */
  constructor(pricingPolicy: PricingPolicy, request: ParsedRequest, route: Route, at: number) {
    this.#pricingPolicy = pricingPolicy;
    this.#route = route;
    this.#at = at;
    this.#bytes = request.bytes;
    this.hasMaxTokens = request.maxTokens !== null;
    this.choices = request.choices;
    this.reservedOutput = (request.maxTokens ?? pricingPolicy.maxOutputTokens) * request.choices;
    this.#weight = pricingPolicy.pricing.weightOf(route.upstreamModel);
    this.#reservedInput = Math.ceil(request.bytes / pricingPolicy.reserveBytesPerToken);
    const [price, ...others] = this.#dearestPrices();
    if (price === undefined) throw new Error(`the route of model ${route.model} names no provider`);
    this.#price = price;
    this.#otherPrices = others;
  }

  /** Tokens that the upper bound allows for, of the prompt and of the output. */
  get reservedTokens(): number {
    return this.#reservedInput + this.reservedOutput;
  }

  /** The most that the request can cost with any provider, in the currency of the first. */
  upperBound(): Charge {
    return this.#charge(this.#weight, this.reservedTokens, this.#highestCost(this.#price));
  }

  /** Whether some candidates charge in other currencies than the first. */
  get hasOtherCurrencies(): boolean {
    return this.#otherPrices.length > 0;
  }

  /**
   * Reserves the upper bound in a second currency. Returns the route without the providers that the budget excludes.
   */
  async holdOthers(hold: Hold): Promise<Route> {
    const left = new Set([this.#price.currency]);
    for (const price of this.#otherPrices) {
      // A hold has at most two currencies.
      if (left.size === 2) break;
      const cost = this.#highestCost(price);
      const blocking = await hold.grow({ ...noCharge(price.currency), cost });
      if (blocking === null) left.add(price.currency);
    }
    const candidates = this.#route.candidates.filter((provider) => left.has(this.#priceOf(provider).currency));
    return { ...this.#route, candidates };
  }

  /** Makes the charge at the first data event from this provider: the request, and the prompt as estimated. */
  commit(hold: Hold, provider: Provider): ReturnType<Hold["commit"]> {
    this.#provider = provider.name;
    this.#price = this.#priceOf(provider);
    const usage = { input: this.#estimatedInput(), cached: 0, output: 0, reasoning: 0 };
    const charge = this.#charge(this.#weight, usage.input, costOf(this.#price, usage));
    return hold.commit(charge, { provider: provider.name, price: this.#price.id });
  }

  /** The most that `tokens` more of output can cost, counting only the metrics that cut responses. */
  more(tokens: number): Charge {
    const { cutMidstream } = this.#pricingPolicy;
    const cost = cutMidstream.has("cost") ? highestCostOf(this.#price, 0, tokens) : 0;
    return this.#charge(0, cutMidstream.has("tokens") ? tokens : 0, cost);
  }

  /** The settlement of a request whose output is not charged: the same as commit(), flagged as estimated. */
  promptOnly(outcome: Outcome): Settlement {
    return this.settlement(outcome, { usage: null, prompt: null, outputTokens: 0 });
  }

  /**
   * The settlement of a request whose first event was delivered. Uses the usage that the provider reported, or else
   * estimates of the prompt and the output, flagged, as where the reported tokens are more than can be counted. A
   * broken response costs nothing, and neither does one that was refused before any of it was sent.
   * @param shown whether the client gets what it is charged for
   */
  settlement(outcome: Outcome, report: ResponseReport, shown = true): Settlement {
    const reported = countable(report.usage);
    const estimated = reported === null;
    const prompt = report.prompt ?? { input: this.#estimatedInput() };
    const output = report.outputTokens;
    const usage = reported ??
      countable({ ...noUsage, ...prompt, output }) ?? { ...noUsage, input: this.#estimatedInput(), output };
    const charge =
      outcome === "upstream_failed" || outcome === "refused" || !shown
        ? noCharge(this.#price.currency)
        : this.#charge(this.#weight, usage.input + usage.output, costOf(this.#price, usage));
    return { outcome, charge, usage, estimated, price: this.#price.id, provider: this.#provider };
  }

  #charge(requests: number, tokens: number, cost: number): Charge {
    return { requests, tokens, cost, currency: this.#price.currency };
  }

  #estimatedInput(): number {
    return Math.ceil(this.#bytes / this.#pricingPolicy.estimateBytesPerToken);
  }

  #priceOf(provider: Provider): Price {
    const model = provider.ownName(this.#route.upstreamModel);
    return this.#pricingPolicy.pricing.priceAt(provider.name, model, this.#at);
  }

  /** The highest price among the candidates in each currency, starting with the currency of the first. */
  #dearestPrices(): readonly Price[] {
    const { candidates } = this.#route;
    const dearest = new Map<string, Price>();
    for (const provider of candidates) {
      const price = this.#priceOf(provider);
      const known = dearest.get(price.currency);
      if (known === undefined || this.#highestCost(price) > this.#highestCost(known))
        dearest.set(price.currency, price);
    }
    return [...dearest.values()];
  }

  #highestCost(price: Price): number {
    return highestCostOf(price, this.#reservedInput, this.reservedOutput);
  }
}

/** The settlement of a request that never got a data event: nothing is charged. */
export function nothingOwed(outcome: Outcome, currency: string): Settlement {
  return { outcome, charge: noCharge(currency), usage: noUsage, estimated: false, price: "" };
}

/** How requests are priced, and how tokens are estimated before a provider has counted them. */
export interface PricingPolicy {
  readonly pricing: Pricing;
  /** Bytes of a prompt for each token that is reserved. */
  readonly reserveBytesPerToken: number;
  /** Bytes of a prompt for each token that is charged when the provider reports no usage. */
  readonly estimateBytesPerToken: number;
  /** Output tokens reserved for a request without max_tokens. */
  readonly maxOutputTokens: number;
  /** Metrics whose limits cut a response in mid-stream. */
  readonly cutMidstream: ReadonlySet<Metric>;
}

/**
 * Models without a price, as PROVIDER/MODEL, if any tier has a cost limit: users with such a limit can't use them, so a
 * price was most likely forgotten. A glob may be priced in part on purpose: it is listed only if the config has no
 * prices at all.
 *
 * @param atMs ms since the epoch
 */
export function unpricedModels(
  { providers, quota, models: { prices } }: Pick<Config, "providers" | "quota" | "models">,
  pricing: Pricing,
  atMs: number,
): readonly string[] {
  const limitsCost = Object.values(quota.tiers).some(({ limits }) => limits.some(({ metric }) => metric === "cost"));
  if (!limitsCost) return [];
  return providers
    .filter(({ enabled }) => enabled)
    .flatMap(({ name, models, model_map: own }) =>
      [...models, ...Object.values(own)]
        .filter((model) => prices.length === 0 || !model.includes("*"))
        .map((model) => own[model] ?? model)
        .filter((model, index, all) => all.indexOf(model) === index && pricing.priceAt(name, model, atMs).id === "")
        .map((model) => `${name}/${model}`),
    );
}

/** The pricing policy of a config. Throws RangeError for prices that the config's schema rejects. */
export function createPricingPolicy({ models, quota }: Pick<Config, "models" | "quota">): PricingPolicy {
  return {
    pricing: createPricing({ models, timezone: quota.timezone, currency: quota.currency }),
    reserveBytesPerToken: quota.reserve_bytes_per_token,
    estimateBytesPerToken: quota.estimate_bytes_per_token,
    maxOutputTokens: quota.max_output_tokens,
    cutMidstream: new Set(quota.cut_midstream),
  };
}
