import { costOf, highestCostOf, type Price } from "../quota/pricing/cost.ts";
import type { Charge, Hold, Outcome, Settlement, TokenUsage } from "../quota/ledger.ts";
import type { Provider } from "../providers/provider.ts";
import type { ResponseReport } from "../providers/stream/response-reader.ts";
import type { Route } from "../providers/router.ts";
import { fromBackend } from "../quota/backend-call.ts";
import type { ParsedRequest } from "./formats/api-format.ts";
import type { PricingPolicy } from "./pricing-policy.ts";

const noUsage: TokenUsage = { input: 0, cached: 0, output: 0, reasoning: 0 };

/** What one request owes, at each stage of its way. The prices are those in force when it arrived. */
export class RequestCost {
  /** Tokens of output that the upper bound allows for. */
  readonly heldOutput: number;
  /** Choices that were asked for. */
  readonly choices: number;
  /** Whether the provider was told to keep the output within it. */
  readonly promised: boolean;
  readonly #pricingPolicy: PricingPolicy;
  readonly #route: Route;
  readonly #at: number;
  readonly #bytes: number;
  readonly #heldInput: number;
  readonly #weight: number;
  /** In currencies that other providers charge than the first. */
  readonly #otherPrices: readonly Price[];
  #price: Price;

  /** @param at ms since the epoch */
  constructor(pricingPolicy: PricingPolicy, request: ParsedRequest, route: Route, at: number) {
    this.#pricingPolicy = pricingPolicy;
    this.#route = route;
    this.#at = at;
    this.#bytes = request.bytes;
    this.promised = request.maxTokens !== null;
    this.choices = request.choices;
    this.heldOutput = (request.maxTokens ?? pricingPolicy.maxOutputTokens) * request.choices;
    this.#weight = pricingPolicy.pricing.weightOf(route.upstreamModel);
    this.#heldInput = Math.ceil(request.bytes / pricingPolicy.reserveBytesPerToken);
    const [price, ...others] = this.#dearestPrices();
    if (price === undefined) throw new Error(`the route of model ${route.model} names no provider`);
    this.#price = price;
    this.#otherPrices = others;
  }

  /** The most that the request can come to, whichever provider answers, in the currency of the first. */
  upperBound(): Charge {
    return this.#charge(this.#weight, this.#heldInput + this.heldOutput, this.#highestCost(this.#price));
  }

  /** Whether providers may answer that charge in other currencies than the first. */
  get hasOtherCurrencies(): boolean {
    return this.#otherPrices.length > 0;
  }

  /** Holds what it can come to in another currency. Returns the route without the providers for which there is no room. */
  async holdOthers(hold: Hold): Promise<Route> {
    const left = new Set([this.#price.currency]);
    for (const price of this.#otherPrices) {
      // A hold has two currencies at the most.
      if (left.size === 2) break;
      const cost = this.#highestCost(price);
      const blocking = await fromBackend(() => hold.grow({ requests: 0, tokens: 0, cost, currency: price.currency }));
      if (blocking === null) left.add(price.currency);
    }
    const candidates = this.#route.candidates.filter((provider) => left.has(this.#priceOf(provider).currency));
    return { ...this.#route, candidates };
  }

  /** What is charged at the first data event of this provider's answer: the request, and the prompt as estimated. */
  first(provider: Provider): Charge {
    this.#price = this.#priceOf(provider);
    const usage = { input: this.#estimatedInput(), cached: 0, output: 0, reasoning: 0 };
    return this.#charge(this.#weight, usage.input, costOf(this.#price, usage));
  }

  /** What `tokens` more of output can come to, for limits at which answers are cut. */
  more(tokens: number): Charge {
    const { cutMidstream } = this.#pricingPolicy;
    const cost = cutMidstream.has("cost") ? highestCostOf(this.#price, 0, tokens) : 0;
    return this.#charge(0, cutMidstream.has("tokens") ? tokens : 0, cost);
  }

  /** The last word on a request of whose answer nothing counts: as first(), flagged as estimated. */
  promptOnly(outcome: Outcome): Settlement {
    return this.settlement(outcome, { usage: null, prompt: null, outputTokens: 0 });
  }

  /**
   * The last word on a request whose first event was delivered. What the provider reported counts; where it reported
   * nothing, the prompt's estimate and what the events suggest, flagged. A broken answer, and one that was refused
   * before anything was shown of it, costs nothing.
   * @param shown whether the client gets what it is to pay for
   */
  settlement(outcome: Outcome, report: ResponseReport, shown = true): Settlement {
    const estimated = report.usage === null;
    const prompt = report.prompt ?? { input: this.#estimatedInput() };
    const usage = report.usage ?? { ...noUsage, ...prompt, output: report.outputTokens };
    const charge =
      outcome === "upstream_failed" || outcome === "refused" || !shown
        ? this.#charge(0, 0, 0)
        : this.#charge(this.#weight, usage.input + usage.output, costOf(this.#price, usage));
    return { outcome, charge, usage, estimated, price: this.#price.id };
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

  /** Of the providers that may answer, the dearest in each currency; that of the first provider first. */
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
    return highestCostOf(price, this.#heldInput, this.heldOutput);
  }
}

/** The last word on a request that never got a data event: nothing. */
export function nothingOwed(outcome: Outcome, currency: string): Settlement {
  const charge = { requests: 0, tokens: 0, cost: 0, currency };
  return { outcome, charge, usage: noUsage, estimated: false, price: "" };
}
