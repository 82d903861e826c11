import type { Account } from "../identity/account-schema.ts";
import { groupAccount } from "../quota/accounts.ts";
import type { Group } from "../identity/groups.ts";
import { createKeyedQueue } from "../identity/files/keyed-queue.ts";
import type { Users } from "../identity/users.ts";
import type { ApiKey } from "../identity/keys/api-key.ts";
import { addAmounts } from "../lib/money.ts";
import type { ApiKeys } from "../identity/api-keys.ts";
import type { Allowances } from "../quota/allowances.ts";
import type { BucketState, Ledger, QuotaLimit } from "../quota/ledger.ts";
import { forEachMetric, type Metric, metricNames, metrics } from "../quota/metrics.ts";
import { type Per, periodNames } from "../quota/periods.ts";
import type { Actor, Audit } from "./audit.ts";
import { findUser } from "./find-user.ts";
import type { AdjustRequest, ResetRequest } from "./quota-requests.ts";

interface UserQuotaView {
  readonly account: Account;
  readonly buckets: readonly BucketState[];
  /** API keys with their own limits, and only these limits. */
  readonly keys: readonly { readonly id: string; readonly name: string; readonly buckets: readonly BucketState[] }[];
}

export interface QuotaAdmin {
  /** A user's current usage of each limit. Throws AppError `invalid_request` (invalid user name), `not_found`. */
  of(name: string): Promise<UserQuotaView>;
  /** Changes what counts as used in all running periods. Throws as `of`, and `storage_unavailable`. */
  adjust(actor: Actor, name: string, request: AdjustRequest): Promise<void>;
  /** Restarts a running period. Throws as `adjust`. */
  reset(actor: Actor, name: string, request: ResetRequest): Promise<void>;
  /** What the members of a group have used of its limits together. */
  ofGroup(group: Group): Promise<readonly BucketState[]>;
  /** As `adjust`, in the group's account alone: nothing changes for its members. */
  adjustGroup(actor: Actor, group: Group, request: AdjustRequest): Promise<void>;
  /** As `reset`, for a group. */
  resetGroup(actor: Actor, group: Group, request: ResetRequest): Promise<void>;
}

export interface QuotaAdminOptions {
  readonly users: Pick<Users, "get">;
  readonly ledger: Pick<Ledger, "buckets" | "adjust" | "reset">;
  readonly apiKeys: Pick<ApiKeys, "list">;
  readonly limitsOf: Allowances["limitsOf"];
  /** quota.currency. */
  readonly currency: string;
  readonly audit: Audit;
}

/** An account of the ledger, and whose it is in the audit log. */
interface Target {
  readonly account: string;
  readonly user: string | null;
  /** Before what is changed. */
  readonly prefix: string;
}

const ofUser = (name: string): Target => ({ account: name, user: name, prefix: "" });
const ofGroup = ({ name }: Group): Target => {
  const account = groupAccount(name);
  return { account, user: null, prefix: `${account} ` };
};

/** An account that has the limits of a group alone. */
const standInFor = ({ name }: Group) => ({ quota_tier: "", service: true, default_group: name });

type Counted = Pick<QuotaLimit, "metric" | "per" | "currency">;
type Used = Counted & { readonly used: number };

/** Shows, adjusts and resets what counts as used. */
export function createQuotaAdmin(options: QuotaAdminOptions): QuotaAdmin {
  const { users, apiKeys, ledger, limitsOf, currency, audit } = options;
  /** One change of an account after another: the audit log says what each of them found. */
  const queue = createKeyedQueue();

  /** What an account has used now, whether there are limits on it or not. */
  async function usedOf(name: string, counts: readonly Counted[]): Promise<readonly Used[]> {
    const buckets = await ledger.buckets(
      name,
      counts.map((count) => ({ ...count, max: 0 })),
    );
    return counts.map((count, index) => ({ ...count, used: buckets[index]?.used ?? 0 }));
  }

  async function viewOfKey(account: Account, key: ApiKey) {
    const own = limitsOf(account, key).filter((limit) => limit.apiKey === key.id);
    return { id: key.id, name: key.name, buckets: await ledger.buckets(account.username, own) };
  }

  async function adjust(actor: Actor, target: Target, { reason, currency: own = currency, ...amounts }: AdjustRequest) {
    const { account, user, prefix } = target;
    const delta = { ...forEachMetric(metricNames, (metric) => amounts[metric] ?? 0), currency: own };
    const changed = metricNames.filter((metric) => delta[metric] !== 0);
    const limits = changed.flatMap((metric) => periodNames.map((per) => counted(metric, per, own)));
    const before = await queue.run(account, async () => {
      const now = await usedOf(account, limits);
      await ledger.adjust(account, delta, { reason, by: actor.by });
      return now;
    });
    // What requests use meanwhile is not this change's.
    const after = before.map((one) => ({ ...one, used: Math.max(0, addAmounts(one.used, delta[one.metric])) }));
    const subject = prefix + changed.join(" ");
    const difference = { before: shown(before), after: shown(after) };
    await audit.record(actor, { action: "quota.adjusted", user, subject, ...difference, reason });
  }

  async function reset(
    actor: Actor,
    { account, user, prefix }: Target,
    ofTarget: readonly QuotaLimit[],
    { per, reason }: ResetRequest,
  ) {
    const currencies = new Set([currency, ...ofTarget.flatMap((limit) => limit.currency ?? [])]);
    const limits = metricNames.flatMap((metric) =>
      (metrics[metric].hasCurrency ? [...currencies] : [currency]).map((own) => counted(metric, per, own)),
    );
    const before = await queue.run(account, async () => {
      const now = await usedOf(account, limits);
      await ledger.reset(account, per, { reason, by: actor.by });
      return now;
    });
    const difference = { before: shown(before), after: shown(before.map((one) => ({ ...one, used: 0 }))) };
    await audit.record(actor, { action: "quota.reset", user, subject: prefix + per, ...difference, reason });
  }

  return {
    async of(name) {
      const account = await findUser(users, name);
      const limited = (await apiKeys.list(name)).filter(({ limits }) => limits.length > 0);
      return {
        account,
        buckets: await ledger.buckets(name, limitsOf(account)),
        keys: await Promise.all(limited.map((key) => viewOfKey(account, key))),
      };
    },
    async adjust(actor, name, request) {
      await findUser(users, name);
      await adjust(actor, ofUser(name), request);
    },
    async reset(actor, name, request) {
      const account = await findUser(users, name);
      await reset(actor, ofUser(name), limitsOf(account), request);
    },
    ofGroup: async (group) => ledger.buckets(groupAccount(group.name), limitsOf(standInFor(group), null, group)),
    adjustGroup: (actor, group, request) => adjust(actor, ofGroup(group), request),
    resetGroup: (actor, group, request) =>
      reset(actor, ofGroup(group), limitsOf(standInFor(group), null, group), request),
  };
}

/** As the audit log shows it. */
function shown(all: readonly Used[]) {
  return { used: all.map(({ used, ...count }) => ({ ...count, amount: metrics[count.metric].format(used) })) };
}

function counted(metric: Metric, per: Per, currency: string): Counted {
  return metrics[metric].hasCurrency ? { metric, per, currency } : { metric, per };
}
