import type { ApiKey } from "../identity/keys/api-key.ts";
import { AppError } from "../errors.ts";
import type { JsonObject } from "../lib/json-object.ts";
import type { QuotaLimit } from "../quota/ledger.ts";
import type { Price, Pricing } from "../quota/pricing/pricing.ts";
import { misspelled, type Route, type Router } from "../providers/router.ts";
import type { ParsedRequest } from "./formats/api-format.ts";
import { isModelName } from "./formats/request-checks.ts";
import { unpricedExtra } from "./unpriced-extras.ts";

/** Decides what may be sent and to which providers, before anything is reserved. */
export interface Admission {
  /**
   * Throws AppError forbidden for a model outside the API key's scope. A value that can't be a model name passes here:
   * parse() rejects it later, with the reason.
   */
  checkScope(apiKey: Pick<ApiKey, "allowsModel"> | null, model: unknown): void;
  /**
   * The providers that a request may be sent to. Throws AppError model_not_found and, if the cost of the user or the
   * key is limited, model_not_priced and extra_not_priced: a request that no limit would count is not sent.
   *
   * @param limits of the user and of the API key
   * @param atMs when the request arrived, in ms since the epoch
   */
  routeOf(request: ParsedRequest, body: JsonObject["value"], limits: readonly QuotaLimit[], atMs: number): Route;
}

export function createAdmission({
  router,
  pricing,
}: {
  readonly router: Router;
  readonly pricing: Pricing;
}): Admission {
  return {
    checkScope(apiKey, model) {
      if (apiKey === null || !isModelName(model) || apiKey.allowsModel(model)) return;
      // Suggests the correct spelling, but only to keys that may use that model.
      const meant = router.nearest(model);
      if (meant !== undefined && apiKey.allowsModel(meant)) throw misspelled(model, meant);
      throw new AppError("forbidden", { param: "model", message: "This API key may not use this model." });
    },
    routeOf(request, body, limits, atMs) {
      const route = router.resolve(request.model, request.api);
      const costLimits = limits.filter(({ metric }) => metric === "cost");
      if (costLimits.length === 0) return route;

      const extra = unpricedExtra(body);
      if (extra !== null) throw extraNotPriced(extra);
      const candidates = route.candidates.filter((provider) => {
        const model = provider.ownName(route.upstreamModel);
        return isCounted(pricing.priceAt(provider.name, model, atMs), costLimits);
      });
      if (candidates.length === 0) throw modelNotPriced(request.model, costLimits);
      return candidates.length === route.candidates.length ? route : { ...route, candidates };
    },
  };
}

/**
 * Whether a charge at this price counts towards a cost limit of the user and towards one of the API key, as far as each
 * has cost limits. A price of 0 charges nothing, in any currency.
 */
function isCounted(price: Price, costLimits: readonly QuotaLimit[]): boolean {
  if (price.id === "") return false;
  if (price.cacheHit + price.cacheMiss + price.output + price.reasoning === 0) return true;
  return costLimits.every((limit) =>
    costLimits.some(({ apiKey, currency }) => apiKey === limit.apiKey && currency === price.currency),
  );
}

function modelNotPriced(model: string, costLimits: readonly QuotaLimit[]): AppError {
  const currencies = [...new Set(costLimits.map(({ currency }) => currency))].join(" and ");
  const message = `The model ${JSON.stringify(model)} has no price in ${currencies} now, and your cost is limited: it can't be counted.`;
  return new AppError("model_not_priced", { param: "model", message });
}

function extraNotPriced(param: string): AppError {
  const message = `${param} may cost more than tokens do, and your cost is limited: it can't be counted. Leave it out.`;
  return new AppError("extra_not_priced", { param, message });
}
