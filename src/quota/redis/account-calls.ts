import {
  replyList,
  replyNumber,
  replyText,
  RedisReplyError,
  type CallOptions,
  type Redis,
  type RedisReply,
} from "../../lib/redis/redis.ts";
import { groupAccount } from "../accounts.ts";
import type { BucketState, Charge, QuotaLimit } from "../ledger.ts";
import { forEachMetric, metricNames } from "../metrics.ts";
import { periodNames, type PeriodAt } from "../periods.ts";
import type { LedgerReplica, LogRecord } from "./ledger-replica.ts";

/** An account in Redis, one of its API keys, and the limits that are asked about. */
export interface AccountView {
  /** A user's name, or a group's behind an @. */
  readonly account: string;
  readonly tag: string;
  /** acct, and acctkey or once more acct. */
  readonly counts: readonly [string, string];
  readonly apiKey: string | undefined;
  readonly limits: readonly QuotaLimit[];
  /** The limits as ledger.lua has them. */
  readonly limitsText: string;
}

/** The reply to a call about an account: `OK`, `FULL`, `DONE` or `GONE`, and what comes with it. */
export interface AccountReply {
  readonly word: string;
  readonly values: readonly RedisReply[];
}

/** Calls about one account each. */
export interface AccountCalls {
  view(account: string, apiKey: string | undefined, limits: readonly QuotaLimit[]): AccountView;
  /** The end of the list of keys of a call that may write a record. */
  logKeys(tag: string): readonly [string, string];
  /**
   * Calls a function of ledger.lua. Where Redis knows another period it is called again with that one's bounds, and
   * where it has lost something again after the repair.
   *
   * @param keys those between `counts` and the log
   * @param args those behind the five that all functions have
   * @param options of each call
   * @throws RedisUnavailableError, RedisReplyError, CallNotNeededError, and what the repair throws
   */
  call(
    name: string,
    view: AccountView,
    keys: readonly string[],
    args: readonly (string | number)[],
    options?: CallOptions,
  ): Promise<AccountReply>;
  /** Tells the replica of a record; `seq` is "" if there is none. */
  note(tag: string, record: Omit<LogRecord, "seq"> & { readonly seq: string }): void;
}

/** How often a call is made in all, where the period or the repair asks for another. */
const maxCalls = 4;

/** @param now the node's wall-clock time in ms */
export function createAccountCalls(
  redis: Redis,
  replica: LedgerReplica,
  periodAt: PeriodAt,
  now: () => number,
): AccountCalls {
  let shown = { text: "", from: 0, until: 0 };

  /** The bounds of the periods around an instant, as ledger.lua has them. */
  function windowsAt(at: number): string {
    if (at >= shown.from && at < shown.until) return shown.text;
    const windows = periodNames.map((per) => ({ per, ...periodAt(per, at) }));
    const texts = windows.map(({ per, start, end }) => `${per} ${start} ${end ?? "inf"}`);
    const ends = windows.map(({ end }) => end ?? Infinity);
    const from = Math.max(...windows.map(({ start }) => start));
    shown = { text: texts.join(" "), from, until: Math.min(...ends) };
    return shown.text;
  }

  const logKeys = (tag: string): readonly [string, string] => [redis.keyIn(tag, "log"), redis.keyIn(tag, "logseq")];

  return {
    logKeys,
    view(account, apiKey, limits) {
      const tag = redis.tagOf(account);
      const own = redis.keyIn(tag, "acct", account);
      const key = apiKey === undefined ? own : redis.keyIn(tag, "acctkey", `${account}/${apiKey}`);
      return { account, tag, counts: [own, key], apiKey, limits, limitsText: limitsText(limits) };
    },
    async call(name, view, keys, args, options) {
      const { tag, counts, apiKey, limitsText } = view;
      const all = [...counts, ...keys, ...logKeys(tag)] as const;
      let at = now();
      let wasRepaired = false;
      for (let i = 0; i < maxCalls; i++) {
        const known = [replica.lastSeq(tag), replica.hasBegun(view.account) ? 1 : ""];
        const common = [...known, apiKey === undefined ? "" : 1, windowsAt(at), limitsText];
        const reply = await redis.call(name, all, [...common, ...args], options);
        const [word, ...values] = replyList(reply);
        if (word === "STALE") at = replyNumber(values[0]);
        else if (word !== "LOST") return { word: replyText(word), values };
        else if (wasRepaired) break;
        else {
          wasRepaired = true;
          await replica.repair(tag);
        }
      }
      throw new RedisReplyError(`the account ${view.account} cannot be used: its state in Redis is incomplete`);
    },
    note(tag, { seq, ...record }) {
      if (seq !== "") replica.note(tag, { seq: Number(seq), ...record });
    },
  };
}

/** The buckets at the end of a reply, one for each limit. */
export function bucketsIn(values: readonly RedisReply[], from: number, limits: readonly QuotaLimit[]): BucketState[] {
  return limits.map((limit, index) => {
    const at = from + 3 * index;
    const end = replyText(values[at + 2]);
    const resetAt = end === "inf" ? null : Number(end);
    return bucketOf(limit, replyNumber(values[at]), replyNumber(values[at + 1]), resetAt);
  });
}

/** The state of a limit. */
export function bucketOf(limit: QuotaLimit, used: number, reserved: number, resetAt: number | null): BucketState {
  return { limit, used, reserved, remaining: Math.max(0, limit.max - used - reserved), resetAt };
}

/** Amounts as ledger.lua has them: `requests=1 tokens=500 cost:CNY=70`. */
export function amountsText(amounts: Readonly<Record<string, number>>): string {
  let text = "";
  for (const name in amounts) text += `${text === "" ? "" : " "}${name}=${amounts[name] ?? 0}`;
  return text;
}

/** The same of a charge. */
export function chargeText(charge: Charge): string {
  let text = "";
  for (const metric of metricNames) {
    const name = metric === "cost" ? `cost:${charge.currency}` : metric;
    text += `${text === "" ? "" : " "}${name}=${charge[metric]}`;
  }
  return text;
}

/** The charge of such a text. */
export function chargeOf(text: string): Charge {
  const pairs = text.split(" ").map((pair) => pair.split("=") as [string, string?]);
  const [money = "cost:"] = pairs.flatMap(([name]) => (name.startsWith("cost:") ? [name] : []));
  const amounts = new Map(pairs.map(([name, digits]) => [name === money ? "cost" : name, Number(digits)]));
  return { ...forEachMetric(metricNames, (metric) => amounts.get(metric) ?? 0), currency: money.slice("cost:".length) };
}

function limitsText(limits: readonly QuotaLimit[]): string {
  let text = "";
  for (const limit of limits) {
    const { per, max, apiKey } = limit;
    text += `${text === "" ? "" : " "}${limitName(limit)} ${per} ${max} ${apiKey === undefined ? 0 : 1}`;
  }
  return text;
}

/** What a limit counts: `METRIC`, or `cost:CURRENCY`. */
export function limitName({ metric, currency }: Pick<QuotaLimit, "metric" | "currency">): string {
  return metric === "cost" ? `cost:${currency ?? ""}` : metric;
}

/** The account in which a limit counts. */
export function accountOf({ group }: QuotaLimit, user: string): string {
  return group === undefined ? user : groupAccount(group);
}
