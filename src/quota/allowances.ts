import type { GrantConfig, LimitConfig } from "../config/schema.ts";
import type { Clock } from "../lib/clock.ts";
import { addAmounts } from "../lib/money.ts";
import { createWallClock, instantOfToml } from "../lib/wall-clock.ts";
import type { QuotaLimit } from "./ledger.ts";
import { limitName } from "./metrics.ts";
import { toLimit, type Tiers } from "./tiers.ts";

/** The fields of an account that determine what it may use. Accounts are replaced, never mutated. */
export interface AllowanceAccount {
  readonly quota_tier: string;
  /** Each replaces the tier's limit of the same metric, period and currency, or is added to the tier's limits. */
  readonly limits?: readonly LimitConfig[] | undefined;
  /** Each is added to the limit of the same metric, period and currency; ignored if there is none. */
  readonly grants?: readonly GrantConfig[] | undefined;
  /** Whether it is of a service: in its default group it has the limits of the group and of its keys alone. */
  readonly service?: boolean | undefined;
  readonly default_group?: string | undefined;
  /** Whose account it is, and since when: trust multiplies the limits. Absent: nobody's. */
  readonly username?: string | undefined;
  readonly created_at?: Date | undefined;
  readonly trust_step?: string | undefined;
}

/** The fields of an API key that determine what may be used through it. Keys are replaced, never mutated. */
interface AllowanceKey {
  readonly id: string;
  readonly limits: readonly LimitConfig[];
}

/** The fields of a group that determine what its members may use. Groups are replaced, never mutated. */
interface AllowanceGroup {
  readonly name: string;
  readonly limits: readonly LimitConfig[];
}

/** What each user may use: the limits of the tier, the user's own limits, and grants in force. */
export interface Allowances {
  /**
   * The user's current limits, followed by those of the API key in use and those of the group that the request counts
   * for; the same array while nothing changes. An account of an unknown tier may use nothing.
   */
  readonly limitsOf: (
    account: AllowanceAccount,
    apiKey?: AllowanceKey | null,
    group?: AllowanceGroup | null,
  ) => readonly QuotaLimit[];
}

export interface AllowancesOptions {
  readonly tiers: Tiers;
  /** Currency of cost limits and grants that name none. */
  readonly currency: string;
  /** quota.timezone, for dates without an offset. */
  readonly timezone: string;
  readonly clock: Clock;
}

/** Limits that apply from `since` until just before `until`, in ms since the epoch. */
interface Allowance {
  readonly limits: readonly QuotaLimit[];
  readonly since: number;
  readonly until: number;
}

interface Grant extends QuotaLimit {
  readonly until: number;
}

/** Limits in addition to others. */
interface Addition {
  /** The others. */
  readonly to: readonly QuotaLimit[];
  /** All of them. */
  readonly limits: readonly QuotaLimit[];
}

/** Removing a tier from the config must not make its users unlimited. */
const nothing: readonly QuotaLimit[] = [{ metric: "requests", per: "total", max: 0 }];
const unlimited: readonly QuotaLimit[] = [];

/** Creates the allowances. They cache as many accounts as the account store has: a replaced account is forgotten. */
export function createAllowances({ tiers, currency, timezone, clock }: AllowancesOptions): Allowances {
  const local = createWallClock(timezone);
  const known = new WeakMap<AllowanceAccount, Allowance>();
  const knownKeys = new WeakMap<AllowanceKey, Addition>();
  /** By group, and by the limits of the user and the key: many have the same ones, those of their tier. */
  const knownGroups = new WeakMap<AllowanceGroup, WeakMap<readonly QuotaLimit[], readonly QuotaLimit[]>>();

  function workOut(account: AllowanceAccount, now: number): Allowance {
    const ofTier = tiers.limitsOf(account.quota_tier) ?? nothing;
    if (account.limits === undefined && account.grants === undefined) {
      return { limits: ofTier, since: -Infinity, until: Infinity };
    }
    const limits = new Map(ofTier.map((limit) => [limitName(limit), limit]));
    const ofAccount = new Map<string, QuotaLimit>();
    for (const own of account.limits ?? []) {
      const limit = toLimit(own, currency);
      const name = limitName(limit);
      // One that names quota.currency and one that names none count the same: both have to hold, as in keys and groups.
      if (limit.max < (ofAccount.get(name)?.max ?? Infinity)) ofAccount.set(name, limit);
    }
    for (const [name, limit] of ofAccount) limits.set(name, limit);
    const grants = (account.grants ?? []).map((grant): Grant => {
      const until = grant.until === undefined ? Infinity : instantOfToml(grant.until, local);
      return { ...toLimit({ ...grant, max: grant.amount }, currency), until };
    });
    for (const grant of grants) {
      const limit = limits.get(limitName(grant));
      if (limit === undefined || grant.until <= now) continue;
      limits.set(limitName(limit), { ...limit, max: addAmounts(limit.max, grant.max) });
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

  function withKey(limits: readonly QuotaLimit[], apiKey: AllowanceKey | null): readonly QuotaLimit[] {
    if (apiKey === null || apiKey.limits.length === 0) return limits;
    const allowance = knownKeys.get(apiKey);
    if (allowance?.to === limits) return allowance.limits;
    const ofKey = apiKey.limits.map((limit): QuotaLimit => ({ ...toLimit(limit, currency), apiKey: apiKey.id }));
    const fresh = { to: limits, limits: [...limits, ...ofKey] };
    knownKeys.set(apiKey, fresh);
    return fresh.limits;
  }

  function withGroup(limits: readonly QuotaLimit[], group: AllowanceGroup | null): readonly QuotaLimit[] {
    if (group === null || group.limits.length === 0) return limits;
    let known = knownGroups.get(group);
    if (known === undefined) knownGroups.set(group, (known = new WeakMap()));
    let all = known.get(limits);
    if (all === undefined) {
      const ofGroup = group.limits.map((limit): QuotaLimit => ({ ...toLimit(limit, currency), group: group.name }));
      known.set(limits, (all = [...limits, ...ofGroup]));
    }
    return all;
  }

  return {
    limitsOf(account, apiKey = null, group = null) {
      const standsForGroup = account.service === true && group !== null && group.name === account.default_group;
      const own = standsForGroup ? unlimited : ofUser(account);
      return withGroup(withKey(own, apiKey), group);
    },
  };
}
