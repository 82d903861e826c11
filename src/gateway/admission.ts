import type { ApiKey } from "../identity/keys/api-key.ts";
import { AppError } from "../errors.ts";
import type { Account } from "../identity/account-schema.ts";
import type { Group } from "../identity/groups.ts";
import { createAllowList, isModelName } from "../lib/globs.ts";
import type { JsonObject } from "../lib/json-object.ts";
import type { QuotaLimit } from "../quota/ledger.ts";
import type { Price, Pricing } from "../quota/pricing/pricing.ts";
import { misspelled, type Route, type Router } from "../providers/router.ts";
import type { ParsedRequest } from "./formats/api-format.ts";
import { unpricedExtra } from "./unpriced-extras.ts";

/** Whose lists of models apply to a request. */
interface ModelUser {
  readonly apiKey: Pick<ApiKey, "allowsModel"> | null;
  readonly account: Pick<Account, "quota_tier" | "models">;
  readonly group: Pick<Group, "name" | "allowsModel"> | null;
}

/** Decides what may be sent and to which providers, before anything is reserved. */
export interface Admission {
  /**
   * Whether the lists of the API key, of the user, of the tier and of the group all have a model. The key's has names
   * that clients send; the others may have the name after aliases as well.
   */
  allowsModel(user: ModelUser, model: string): boolean;
  /**
   * Throws AppError for a model that one of these lists lacks: forbidden if it is the API key's, else model_not_allowed.
   * A value that can't be a model name passes here: parse() rejects it later, with the reason.
   */
  checkModel(user: ModelUser, model: unknown): void;
  /**
   * The providers that a request may be sent to. Throws AppError model_not_found and, if the cost of the user or the
   * key or the group is limited, model_not_priced and extra_not_priced: a request that no limit would count is not sent.
   *
   * @param limits of the user, of the API key and of the group
   * @param atMs when the request arrived, in ms since the epoch
   */
  routeOf(request: ParsedRequest, body: JsonObject["value"], limits: readonly QuotaLimit[], atMs: number): Route;
}

export function createAdmission({
  router,
  pricing,
  tiers,
}: {
  readonly router: Router;
  readonly pricing: Pricing;
  /** Those of the config. */
  readonly tiers: Readonly<Record<string, { readonly models?: readonly string[] | undefined }>>;
}): Admission {
  const ofTiers = new Map(Object.entries(tiers).map(([name, { models }]) => [name, createAllowList(models)]));
  /** By the list of a user, which is replaced and never changed. */
  const ofUsers = new WeakMap<readonly string[], (model: string) => boolean>();

  function ofUser(models: readonly string[] | undefined): (model: string) => boolean {
    if (models === undefined) return everyModel;
    let list = ofUsers.get(models);
    if (list === undefined) ofUsers.set(models, (list = createAllowList(models)));
    return list;
  }

  /** What refuses a model; null: nothing. */
  function refusing({ apiKey, account, group }: ModelUser, model: string): AppError | null {
    if (apiKey?.allowsModel(model) === false) {
      return new AppError("forbidden", { param: "model", message: "This API key may not use this model." });
    }
    const target = router.upstreamName(model);
    const isIn = (list: (name: string) => boolean): boolean => list(model) || (target !== model && list(target));
    if (!isIn(ofUser(account.models))) return notAllowed("You may not use this model.");
    if (!isIn(ofTiers.get(account.quota_tier) ?? everyModel)) return notAllowed("Your tier may not use this model.");
    if (group === null || isIn((name) => group.allowsModel(name))) return null;
    return notAllowed(`The group ${group.name} may not use this model.`);
  }

  return {
    allowsModel: (user, model) => refusing(user, model) === null,
    checkModel(user, model) {
      if (!isModelName(model)) return;
      const error = refusing(user, model);
      if (error === null) return;
      // Suggests the correct spelling, but only to those who may use that model.
      const meant = router.nearest(model);
      if (meant !== undefined && refusing(user, meant) === null) throw misspelled(model, meant);
      throw error;
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

function everyModel(): boolean {
  return true;
}

function notAllowed(message: string): AppError {
  return new AppError("model_not_allowed", { param: "model", message });
}

/**
 * Whether a charge at this price counts towards a cost limit of the user, towards one of the API key and towards one of
 * the group, as far as each has cost limits. A price of 0 charges nothing, in any currency.
 */
function isCounted(price: Price, costLimits: readonly QuotaLimit[]): boolean {
  if (price.id === "") return false;
  if (price.cacheHit + price.cacheMiss + price.output + price.reasoning === 0) return true;
  return costLimits.every((limit) =>
    costLimits.some(
      ({ apiKey, group, currency }) => apiKey === limit.apiKey && group === limit.group && currency === price.currency,
    ),
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
