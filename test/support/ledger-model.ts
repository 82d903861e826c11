import type { Charge, QuotaLimit } from "../../src/quota/ledger.ts";
import type { Per } from "../../src/quota/periods.ts";

const dayMs = 86_400_000;

/** Which period of Shanghai's calendar an instant is in: there are eight hours and no summer time. */
export function periodKey(per: Per, atMs: number): number {
  const day = Math.floor((atMs + dayMs / 3) / dayMs);
  const date = new Date(day * dayMs);
  const month = date.getUTCFullYear() * 12 + date.getUTCMonth();
  // The epoch was a Thursday.
  return { day, week: Math.floor((day + 3) / 7), month, total: 0 }[per];
}

/** Whose a request is. */
export interface Source {
  /** Or, for a change by hand, a group behind an @. */
  readonly user: string;
  readonly apiKey?: string | undefined;
  readonly group?: string | undefined;
}

/** Something that was added or taken away, or the reset of a period. */
export interface Entry extends Source {
  readonly at: number;
  readonly amount: Charge;
  /** Of a settle: the number of the entry that it is about. */
  readonly of?: number;
  readonly reset?: Per;
}

/** The whole of accounting: a list of what was charged and changed, and a list of what is held. */
export class LedgerModel {
  readonly entries: Entry[] = [];
  held: (Source & { amount: Charge })[] = [];
  /** Numbers of charges that have not been settled. */
  readonly unsettled = new Set<number>();

  /** @param user whose limit it is, if it is not a group's */
  used(user: string, limit: QuotaLimit, now: number): number {
    const { metric, per, currency } = limit;
    let sum = 0;
    let since = -1;
    for (const [index, entry] of this.entries.entries()) {
      if (!concerns(limit, user, entry) || periodKey(per, entry.at) !== periodKey(per, now)) continue;
      if (entry.reset === per) {
        sum = 0;
        since = index;
      } else if ((entry.of ?? index) > since) {
        sum = Math.max(0, sum + amountOf(entry.amount, metric, currency));
      }
    }
    return sum;
  }

  reserved(user: string, limit: QuotaLimit): number {
    return this.held
      .filter((held) => concerns(limit, user, held))
      .reduce((sum, { amount }) => sum + amountOf(amount, limit.metric, limit.currency), 0);
  }

  /** @param charge number of the charge that `bound` is added to: its period must have room as well */
  hasRoom(user: string, limits: readonly QuotaLimit[], bound: Charge, now: number, charge?: number): boolean {
    return limits.every((limit) => {
      if (limit.metric === "cost" && limit.currency !== bound.currency) return true;
      const used = Math.max(this.used(user, limit, now), this.usedBeside(user, limit, charge));
      return used + this.reserved(user, limit) + bound[limit.metric] <= limit.max;
    });
  }

  /**
   * What was used in the period of a charge. 0 if that was reset since, or is forgotten: only the period in which
   * something was counted last is remembered, and the one before it.
   */
  private usedBeside(user: string, limit: QuotaLimit, charge = -1): number {
    const at = this.entries[charge]?.at;
    if (at === undefined) return 0;
    const { per } = limit;
    const asked = periodKey(per, at);
    const counted = [...this.entries.entries()].filter(([, entry]) => concerns(limit, user, entry));
    const isReset = counted.some(([index, entry]) => {
      return index > charge && entry.reset === per && periodKey(per, entry.at) === asked;
    });
    const periods = new Set(counted.map(([, entry]) => periodKey(per, entry.at)));
    const remembered = [...periods].sort((a, b) => b - a).slice(0, 2);
    return !isReset && remembered.includes(asked) ? this.used(user, limit, at) : 0;
  }

  /** What some sources have used on each day: [day, requests, tokens, CNY, USD, unsettled]. */
  history(isOne: (entry: Source) => boolean): (string | number)[][] {
    const days = new Map<string, number[]>();
    for (const [index, entry] of this.entries.entries()) {
      const { at, amount } = entry;
      if (!isOne(entry)) continue;
      const day = new Date(periodKey("day", at) * dayMs).toISOString().slice(0, 10);
      const [requests = 0, tokens = 0, cny = 0, usd = 0, unsettled = 0] = days.get(day) ?? [];
      days.set(day, [
        requests + amount.requests,
        tokens + amount.tokens,
        cny + amountOf(amount, "cost", "CNY"),
        usd + amountOf(amount, "cost", "USD"),
        unsettled + (this.unsettled.has(index) ? 1 : 0),
      ]);
    }
    return [...days].map(([day, sums]) => [day, ...sums]).sort((a, b) => (String(a[0]) < String(b[0]) ? -1 : 1));
  }
}

/** Whether something that was used or held counts towards a limit. Changes by hand concern no API key. */
function concerns(limit: QuotaLimit, user: string, source: Source): boolean {
  if (limit.group !== undefined) return inGroup(limit.group)(source);
  return source.user === user && (limit.apiKey === undefined || source.apiKey === limit.apiKey);
}

/** Of what was used in a group, or changed by hand in its account. */
export function inGroup(group: string): (source: Source) => boolean {
  return (source) => source.group === group || source.user === `@${group}`;
}

function amountOf(amount: Charge, metric: QuotaLimit["metric"], currency: string | undefined): number {
  return metric === "cost" && amount.currency !== currency ? 0 : amount[metric];
}

/** The same amount below 0. */
export function minus({ requests, tokens, cost, currency }: Charge): Charge {
  return { requests: -requests, tokens: -tokens, cost: -cost, currency };
}
