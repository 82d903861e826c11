import { AppError } from "../errors.ts";
import type { Account } from "../identity/account-schema.ts";
import type { Groups } from "../identity/groups.ts";
import type { Users } from "../identity/users.ts";
import type { Awaitable } from "../lib/awaitable.ts";
import { ipPrefix } from "../lib/ip-list.ts";
import type { ConcurrencyLimiter, Permit, PermitRequest, PermitScope, Waiting } from "../limits/concurrency.ts";
import type { PermitRules } from "../limits/permit-rules.ts";
import type { RateLimiter, RateLimitRefusal, RateLimitRequest, RateTicket, RateUse } from "../limits/rate-limiter.ts";
import type { Route } from "../providers/router.ts";
import type { Hold, Ledger, QuotaLimit, ReserveRequest, Settlement } from "../quota/ledger.ts";
import type { Trust } from "../risk/trust.ts";
import type { RequestContext } from "./request-context.ts";
import { nothingOwed, type RequestCost } from "./request-cost.ts";

/** A request that is about to be admitted. */
interface Admission {
  readonly route: Route;
  readonly cost: RequestCost;
  readonly limits: readonly QuotaLimit[];
  /** As ConcurrencyLimiter.acquire has it. */
  readonly onWaiting: (now: () => Waiting) => void;
}

/** What the gateway needs of the backends to admit a request. */
interface AdmitOptions {
  readonly concurrency: ConcurrencyLimiter;
  readonly ledger: Ledger;
  readonly rateLimiter: RateLimiter;
  readonly users: Pick<Users, "get">;
  readonly groups: Pick<Groups, "get">;
  /** The rules in force, which may be newer than those that a request has begun under. */
  readonly permitRules: () => PermitRules;
  readonly trustOf: (account: Account) => Trust;
}

/** Where it may be sent, beginning with the provider whose place and rates it has. */
interface Admitted {
  readonly hold: Hold;
  readonly route: Route;
}

/** Users who are remembered as not admitted, at most. */
const maxRemembered = 10_000;

/**
 * Admits requests: each needs a permit, a hold on its quota and a ticket of the rates, or is refused with what the first
 * of them says, in this order. What is granted is noted in the context at once: the end of the request gives it back.
 */
export function createAdmit({ concurrency, ledger, rateLimiter, ...options }: AdmitOptions) {
  /**
   * Users whose last request was refused, or had to wait, after it was asked for all three at once. Their next one is asked
   * for one after the other: else a user without quota who goes on asking would, again and again for a moment, hold what
   * others need of a shared rate.
   */
  const notAdmitted = new Set<string>();

  async function userMaxNow(user: string): Promise<number> {
    const account = await options.users.get(user);
    if (account === undefined) throw new Error("the user is gone");
    return userMax(account, options.permitRules(), options.trustOf(account));
  }

  async function groupMaxNow(name: string): Promise<number> {
    const group = await options.groups.get(name);
    if (group === undefined) throw new Error("the group is gone");
    return group.maxParallel ?? Infinity;
  }

  function maxNow({ kind, key }: PermitScope): Awaitable<number> {
    switch (kind) {
      case "user":
        return userMaxNow(key);
      case "group":
        return groupMaxNow(key);
      case "model":
        return options.permitRules().modelScope(key)?.max ?? Infinity;
      case "provider":
        return options.permitRules().providerScope(key).max;
      case "process":
        return options.permitRules().total?.max ?? Infinity;
    }
  }

  return async function admit(context: RequestContext, admission: Admission): Promise<Admitted> {
    const { route, cost, limits, onWaiting } = admission;
    const { client, account } = context.incoming;
    const { username: user } = account;
    let wake: (() => void) | null = null;
    const asked = concurrency.acquire(permitRequest(context, route, maxNow), client, (now) => {
      onWaiting(now);
      wake?.();
    });
    // Money in several currencies is held one after the other.
    const inTurn =
      !(asked instanceof Promise) ||
      context.isWaiting ||
      (limitsCost(limits) && cost.hasOtherCurrencies) ||
      notAdmitted.has(user);
    if (!inTurn) {
      const waiting = new Promise<void>((resolve) => (wake = resolve));
      const admitted = await together(context, admission, asked, waiting);
      if (admitted !== null) return admitted;
    }
    const permit = (context.permit = await asked);
    context.stopWaiting();
    client.stopNotice();
    const hold = (context.hold = await ledger.reserve(reservation(context, admission)));
    notAdmitted.delete(user);
    context.buckets = hold.buckets;
    const affordable = limitsCost(limits) && cost.hasOtherCurrencies ? await cost.holdOthers(hold) : route;
    const placed = routeFrom(affordable, permit.provider);
    // The last step before sending: a request that is refused for another reason uses none of the shared rate.
    const ticket = await rateLimiter.take(rateRequest(context, placed, cost));
    if (!("settle" in ticket)) throw rateLimited(ticket, context.refusedRates(ticket));
    context.ticket = ticket;
    return { hold, route: routeFrom(placed, ticket.provider) };
  };

  /**
   * Backends behind a network are asked for all three at once: one round trip. Null if the request has to wait for its
   * permit: it must not hold quota meanwhile, and everything has been given back.
   */
  async function together(
    context: RequestContext,
    { route, cost, limits }: Admission,
    asked: Promise<Permit>,
    waiting: Promise<void>,
  ): Promise<Admitted | null> {
    // Functions of their own: one of these may answer at once, and then throws.
    const reserve = async (): Promise<Hold> => ledger.reserve(reservation(context, { cost, limits }));
    const take = async (): Promise<RateTicket | RateLimitRefusal> =>
      rateLimiter.take(rateRequest(context, route, cost));
    const outcomes = Promise.allSettled([reserve(), take()]);
    // What is granted after all when another of the three has failed is noted before the request ends.
    const [permitted] = await Promise.allSettled([Promise.race([asked, waiting])]);
    const [reserved, taken] = await outcomes;
    const hold = (context.hold = reserved.status === "fulfilled" ? reserved.value : null);
    const ticket = taken.status === "fulfilled" && "settle" in taken.value ? taken.value : null;
    context.ticket = ticket;
    if (permitted.status === "rejected" || permitted.value === undefined || reserved.status === "rejected") {
      // Of too many the one that came first is forgotten.
      const [first] = notAdmitted.size < maxRemembered ? [] : notAdmitted;
      if (first !== undefined) notAdmitted.delete(first);
      notAdmitted.add(context.incoming.account.username);
    }
    if (permitted.status === "rejected") throw permitted.reason;
    const permit = permitted.value;
    if (permit === undefined) {
      context.hold = context.ticket = null;
      // What cannot be given back lapses by itself.
      await Promise.allSettled([
        hold?.settle(nothingOwed("refused", context.incoming.policy.currency)),
        ticket?.settle(unsent),
      ]);
      return null;
    }
    context.permit = permit;
    if (reserved.status === "rejected") throw reserved.reason;
    if (taken.status === "rejected") throw taken.reason;
    if (hold === null) throw new Error("a reservation without a hold");
    context.buckets = hold.buckets;
    if (!("settle" in taken.value)) throw rateLimited(taken.value, context.refusedRates(taken.value));
    const placed = routeFrom(route, permit.provider);
    if (ticket?.provider != null && permit.provider !== null && ticket.provider !== permit.provider) {
      // The place decides: its provider's rates are taken instead.
      const refusal = await ticket.move(permit.provider);
      if (refusal !== null) throw rateLimited(refusal, context.refusedRates(refusal));
    }
    return { hold, route: routeFrom(placed, ticket?.provider ?? null) };
  }
}

const noProviders: readonly PermitScope[] = [];
const unsent: RateUse = { wasSent: false, tokens: 0, outputTokens: 0 };

function limitsCost(limits: readonly QuotaLimit[]): boolean {
  return limits.some(({ metric }) => metric === "cost");
}

/** The trace id is one id for a request in the journal, logs, events and the client's X-Request-ID. */
function reservation(
  { incoming, group, request }: RequestContext,
  { cost, limits }: Pick<Admission, "cost" | "limits">,
): ReserveRequest {
  const { account, apiKey, client } = incoming;
  return {
    user: account.username,
    limits,
    requestId: client.traceId,
    model: request?.model ?? "",
    apiKey: apiKey?.id,
    group: group?.name,
    upperBound: cost.upperBound(),
  };
}

/** The permits that a request needs in order to run. What has no cap is left out. */
export function permitRequest(
  { incoming, group, trust }: RequestContext,
  route: Route,
  maxNow?: PermitRequest["maxNow"],
): PermitRequest {
  const { account, client, policy } = incoming;
  const { permitRules: rules } = policy;
  const user = account.username;
  const scopes: PermitScope[] = [{ kind: "user", key: user, max: userMax(account, rules, trust) }];
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
    maxNow,
  };
}

function userMax(
  { max_parallel: own }: Pick<Account, "max_parallel">,
  { maxParallel }: PermitRules,
  { parallel }: Trust,
): number {
  return Math.max(1, Math.floor((own ?? maxParallel) * parallel));
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
function rateRequest(context: RequestContext, route: Route, cost: RequestCost): RateLimitRequest {
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
function routeFrom(route: Route, first: string | null): Route {
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
