import type { GrantConfig, LimitConfig } from "../config/schema.ts";
import type { Clock } from "../lib/clock.ts";
import { addAmounts } from "../lib/money.ts";
import { createWallClock, instantOfToml } from "../lib/wall-clock.ts";
import type { QuotaLimit } from "./ledger.ts";
import { toLimit, type Tiers } from "./tiers.ts";

/** As much of an account as says what it may use. Accounts are replaced, never changed in place. */
export interface AllowanceAccount {
  readonly quota_tier: string;
  /** Each takes the place of the tier's limit of the same metric, period and currency, or is one more. */
  readonly limits?: readonly LimitConfig[] | undefined;
  /** Each is added to the limit of the same metric, period and currency; means nothing where there is none. */
  readonly grants?: readonly GrantConfig[] | undefined;
}

/** As much of an API key as says what may be used through it. Keys are replaced, never changed in place. */
interface AllowanceKey {
  readonly id: string;
  readonly limits: readonly LimitConfig[];
}

/** What each user may use: the limits of the tier, the user's own, and grants while they last. */
export interface Allowances {
  /**
   * The user's limits now, and after them those of the API key that is used; the same array while nothing changes. An
   * account of an unknown tier may use nothing.
   */
  readonly limitsOf: (account: AllowanceAccount, apiKey?: AllowanceKey | null) => readonly QuotaLimit[];
}

export interface AllowancesOptions {
  readonly tiers: Tiers;
  /** Currency of limits and grants of cost that name none. */
  readonly currency: string;
  /** quota.timezone, in which dates without an offset are meant. */
  readonly timezone: string;
  readonly clock: Clock;
}

/** Limits that hold from `since` until just before `until`, in ms since the epoch. */
interface Allowance {
  readonly limits: readonly QuotaLimit[];
  readonly since: number;
  readonly until: number;
}

interface Grant extends QuotaLimit {
  readonly until: number;
}

/** The limits of a key behind those of its user. */
interface KeyAllowance {
  readonly ofUser: readonly QuotaLimit[];
  readonly limits: readonly QuotaLimit[];
}

/** A tier that is gone from the config must not make its users unlimited. */
const nothing: readonly QuotaLimit[] = [{ metric: "requests", per: "total", max: 0 }];

/** Makes the allowances. They remember as many accounts as the accounts' store does: a replaced one is forgotten. */
export function createAllowances({ tiers, currency, timezone, clock }: AllowancesOptions): Allowances {
  const local = createWallClock(timezone);
  const known = new WeakMap<AllowanceAccount, Allowance>();
  const knownKeys = new WeakMap<AllowanceKey, KeyAllowance>();

  function workOut(account: AllowanceAccount, now: number): Allowance {
    const ofTier = tiers.limitsOf(account.quota_tier) ?? nothing;
    if (account.limits === undefined && account.grants === undefined) {
      return { limits: ofTier, since: -Infinity, until: Infinity };
    }
    const limits = new Map(ofTier.map((limit) => [keyOf(limit), limit]));
    for (const own of account.limits ?? []) {
      const limit = toLimit(own, currency);
      limits.set(keyOf(limit), limit);
    }
    const grants = (account.grants ?? []).map((grant): Grant => {
      const until = grant.until === undefined ? Infinity : instantOfToml(grant.until, local);
      return { ...toLimit({ ...grant, max: grant.amount }, currency), until };
    });
    for (const grant of grants) {
      const limit = limits.get(keyOf(grant));
      if (limit === undefined || grant.until <= now) continue;
      limits.set(keyOf(limit), { ...limit, max: addAmounts(limit.max, grant.max) });
    }
    const ends = grants.map(({ until }) => until);
    return {
      limits: [...limits.values()],
      since: Math.max(-Infinity, ...ends.filter((end) => end <= now)),
      until: Math.min(Infinity, ...ends.filter((end) => end > now)),
    };
  }

  function ofUser(account: AllowanceAccount): readonly QuotaLimit[] {
    const now = clock.now();
    const allowance = known.get(account);
    if (allowance !== undefined && now >= allowance.since && now < allowance.until) return allowance.limits;
    const fresh = workOut(account, now);
    known.set(account, fresh);
    return fresh.limits;
  }

  return {
    limitsOf(account, apiKey = null) {
      const limits = ofUser(account);
      if (apiKey === null || apiKey.limits.length === 0) return limits;
      const allowance = knownKeys.get(apiKey);
      if (allowance?.ofUser === limits) return allowance.limits;
      const ofKey = apiKey.limits.map((limit): QuotaLimit => ({ ...toLimit(limit, currency), apiKey: apiKey.id }));
      const fresh = { ofUser: limits, limits: [...limits, ...ofKey] };
      knownKeys.set(apiKey, fresh);
      return fresh.limits;
    },
  };
}

function keyOf({ metric, per, currency = "" }: QuotaLimit): string {
  return `${metric} ${per} ${currency}`;
}
