import { AppError } from "../errors.ts";
import type { Awaitable } from "../lib/awaitable.ts";
import { ipPrefix } from "../lib/ip-list.ts";
import type { PermitRequest, PermitScope } from "../limits/concurrency.ts";
import type { RateLimitRefusal, RateLimitRequest, RateUse } from "../limits/rate-limiter.ts";
import type { Route } from "../providers/router.ts";
import type { Settlement } from "../quota/ledger.ts";
import type { RequestContext } from "./request-context.ts";
import type { RequestCost } from "./request-cost.ts";

const noProviders: readonly PermitScope[] = [];

/** The permits that a request needs in order to run. What has no cap is left out. */
export function permitRequest({ incoming, group, trust }: RequestContext, route: Route): PermitRequest {
  const { account, client, policy } = incoming;
  const { permitRules: rules } = policy;
  const user = account.username;
  const max = Math.max(1, Math.floor((account.max_parallel ?? rules.maxParallel) * trust.parallel));
  const scopes: PermitScope[] = [{ kind: "user", key: user, max }];
  if (group !== null && group.maxParallel !== null)
    scopes.push({ kind: "group", key: group.name, max: group.maxParallel });
  const model = rules.modelScope(route.upstreamModel);
  if (model !== null) scopes.push(model);
  if (rules.total !== null) scopes.push(rules.total);
  return {
    requestId: client.traceId,
    user,
    weight: rules.weightOf(account.quota_tier),
    scopes,
    providers: rules.capsProviders ? providerNames(route).map(rules.providerScope) : noProviders,
  };
}

/**
 * How failover takes a place at a provider, and of its rates, before it sends a request there; null if no provider has a
 * cap or a rate. Notes in the context which rates have refused.
 */
export function placeTaker(context: RequestContext): ((provider: string) => Awaitable<boolean>) | null {
  const { permit, ticket, incoming } = context;
  if (permit?.provider == null && ticket?.provider == null) return null;
  const { permitRules } = incoming.policy;
  return async (provider) => {
    // The place first: one that is not used is free again when the request ends, but what is taken of a rate is not.
    if (permit?.provider != null && !(await permit.move(permitRules.providerScope(provider)))) return false;
    if (ticket?.provider == null || ticket.provider === provider) return true;
    const refusal = await ticket.move(provider);
    if (refusal === null) return true;
    const { leftOut } = context;
    if (refusal.tooLarge === null && (leftOut === null || refusal.retryAfterMs < leftOut.retryAfterMs))
      context.leftOut = refusal;
    return false;
  };
}

/** What the rate limiter is asked for a request that may go to these providers. */
export function rateRequest(context: RequestContext, route: Route, cost: RequestCost): RateLimitRequest {
  const { account, apiKey, ip, client } = context.incoming;
  return {
    requestId: client.traceId,
    user: account.username,
    tier: account.quota_tier,
    group: context.group?.name ?? null,
    apiKey: apiKey?.id ?? null,
    ip: ipPrefix(ip),
    model: route.model,
    upstreamModel: route.upstreamModel,
    providers: providerNames(route),
    tokens: cost.reservedTokens,
    outputTokens: cost.reservedOutput,
    isOwnBound: !cost.hasMaxTokens,
    factor: context.trust.rate,
  };
}

/** A provider with several keys is several candidates. */
function providerNames({ candidates }: Route): readonly string[] {
  const names: string[] = [];
  for (const { name } of candidates) if (!names.includes(name)) names.push(name);
  return names;
}

/** The route with the candidates of one provider first; as it is if `first` is null. */
export function routeFrom(route: Route, first: string | null): Route {
  const { candidates } = route;
  if (first === null || candidates[0]?.name === first) return route;
  const chosen = candidates.filter(({ name }) => name === first);
  return { ...route, candidates: [...chosen, ...candidates.filter(({ name }) => name !== first)] };
}

/** What a request has used of the rates. Tokens that a provider has generated count even if they are not charged. */
export function useOf({ wasSent }: RequestContext, { usage }: Settlement): RateUse {
  return { wasSent, tokens: usage.input + usage.output, outputTokens: usage.output };
}

/** The 429 of a request that some rule refuses. */
export function rateLimited(
  { rule, retryAfterMs, tooLarge }: RateLimitRefusal,
  headers: Readonly<Record<string, string>>,
): AppError {
  const extras = { retryAfterSeconds: retryAfterMs / 1000, headers };
  if (tooLarge === null) return new AppError("rate_limited", { ...extras, details: { rule } });
  const { metric, needed, most } = tooLarge;
  const message = `This request may need ${needed} ${metric.replace("_", " ")}, and the rule ${rule} allows ${most} at once.`;
  return new AppError("rate_limited", {
    ...extras,
    message: metric === "requests" ? message : `${message} Lower max_tokens, or send less.`,
    shouldRetry: false,
    details: { rule, metric, needed, most },
  });
}
