import {
  type CallOptions,
  replyNumber,
  replyText,
  RedisReplyError,
  RedisUnavailableError,
  type Redis,
} from "../../lib/redis/redis.ts";
import type { Slotted } from "../../lib/swap-remove-set.ts";
import { isGroupAccount } from "../accounts.ts";
import type { BucketState, Charge, QuotaLimit } from "../ledger.ts";
import {
  type AccountCalls,
  type AccountReply,
  type AccountView,
  amountsText,
  bucketsIn,
  chargeText,
} from "./account-calls.ts";

/** A request's reservation in one account: its user's, or its group's. */
export interface HoldPart extends Slotted {
  /** Unlike a request id, which a client may send twice, no other request has it. */
  readonly id: string;
  readonly view: AccountView;
  /** hold, leases. */
  readonly keys: readonly [string, string];
  /** Its name among the leases of the tag, from which any node can tell what it holds: see LeaseName. */
  readonly member: string;
  /** The time of its first charge, once Redis has said so. */
  chargedAt: number | undefined;
  /** Once it is held. */
  holder: Holder | undefined;
}

/** What knows how much a part of a request may still be charged. */
export interface Holder {
  heldOf(part: HoldPart): HeldAmounts;
}

/** The reservation was settled or given up before the call for it arrived. */
export class HoldEndedError extends RedisUnavailableError {}

/** The id of a hold, its account, the API key or "", and for a group's account the user or "". */
export type LeaseName = readonly [id: string, account: string, apiKey: string, user: string];

/** What is held, by `METRIC` or `cost:CURRENCY`. */
export type HeldAmounts = Readonly<Record<string, number>>;

/** A limit without room, and whether there may be some in a moment. */
export interface NoRoom {
  readonly index: number;
  readonly unsure: boolean;
  readonly bucket: BucketState;
}

/** The first of a request's limits for which an account has no room. */
export type Refusal = NoRoom & { readonly limit: QuotaLimit };

/** The first charge, for the call that makes it. */
export interface FirstCharge {
  readonly first: Charge;
  /** The record as JSON, but for `{"at":…,` in front of it; "" for a group's account. */
  readonly body: string;
  /** The time of the user's charge; undefined: now, or `ago` ms before. */
  readonly at?: number | undefined;
  readonly ago?: number | undefined;
}

/** The end of a charge. */
export interface FinalCharge {
  readonly final: Charge;
  /** As FirstCharge.body, for the settlement. */
  readonly body: string;
  /** The first charge: to be made where Redis has none, unless the part knows its time. Undefined: then nothing is. */
  readonly first: FirstCharge | undefined;
  /** Whether the request has a part in a group's account as well. */
  readonly shared: boolean;
  /** Whether an earlier try cannot have been forgotten. */
  readonly fresh: boolean;
}

/** The functions of ledger.lua that concern one reservation in one account. Each throws as AccountCalls.call. */
export interface HoldCalls {
  part(id: string, view: AccountView, user: string): HoldPart;
  /**
   * Asks the accounts of all parts at once. If one refuses or fails, nothing stays reserved in the others. Returns the
   * buckets of each part, or what the first of the limits without room says.
   *
   * @param limits those of all parts, in the order of the request
   * @param keepMs how long it is kept without a word from its node; default: that of a request
   */
  reserve(
    parts: readonly HoldPart[],
    limits: readonly QuotaLimit[],
    bound: HeldAmounts,
    keepMs?: number,
  ): Promise<readonly (readonly BucketState[])[] | Refusal>;
  /** Makes the first charge. */
  commit(part: HoldPart, charge: FirstCharge, options?: CallOptions): Promise<readonly BucketState[]>;
  /** Makes it hold so much in all if there is room for `extra`; without `extra` in any case. */
  grow(part: HoldPart, held: HeldAmounts, extra: Charge | null): Promise<NoRoom | null>;
  /** Releases it and, with `charge`, settles. Undefined if that was done before, and nobody knows the buckets then. */
  settle(part: HoldPart, charge: FinalCharge | null): Promise<readonly BucketState[] | undefined>;
}

/** A settled hold is remembered for so long, in ms, and for longer than the lease of what may ask for it. */
const rememberHoldMs = 300_000;

/**
 * @param leaseMs how long a hold is kept without a word from its node
 * @param rememberMs how long a settled one is remembered, for a settlement that is repeated
 */
export function createHoldCalls(
  redis: Redis,
  calls: AccountCalls,
  leaseMs: number,
  rememberMs = rememberHoldMs,
): HoldCalls {
  const rememberedMs = Math.max(rememberMs, 3 * leaseMs);

  const call = (name: string, { view, keys }: HoldPart, args: readonly (string | number)[], options?: CallOptions) =>
    calls.call(name, view, keys, args, options);

  function note(part: HoldPart, kind: "charge" | "settle", at: number, seq: string, writtenAt: number, body: string) {
    const record = body === "" ? ({ kind: "mark", body: "{}" } as const) : { kind, body: `{"at":${at},${body}` };
    calls.note(part.view.tag, { seq, writtenAt, ...record });
  }

  return {
    part(id, view, user) {
      const isGroup = isGroupAccount(view.account);
      const name: LeaseName = [id, view.account, view.apiKey ?? "", isGroup ? user : ""];
      const keys = [redis.keyIn(view.tag, "hold", holdName(name)), redis.keyIn(view.tag, "leases")] as const;
      return { id, view, keys, member: JSON.stringify(name), chargedAt: undefined, holder: undefined, slot: -1 };
    },
    async reserve(parts, limits, bound, keepMs = leaseMs) {
      const pair = parts.length > 1;
      const text = amountsText(bound);
      const results = await Promise.allSettled(parts.map((part) => reserveOne(part, text, pair, keepMs)));
      const replies = results.map((result) => (result.status === "fulfilled" ? result.value : undefined));
      const granted = replies.flatMap((reply) => (reply === undefined || "bucket" in reply ? [] : [reply]));
      if (granted.length === parts.length) {
        if (pair) for (const part of parts) confirm(part);
        return granted;
      }
      for (const [index, part] of parts.entries()) {
        const reply = replies[index];
        // Where it fails too, the lease ends what may be there.
        if (reply === undefined || !("bucket" in reply)) settle(part, null).catch(() => undefined);
      }
      const failed = results.find((result) => result.status === "rejected");
      if (failed?.status === "rejected") throw failed.reason;
      const refusals = replies.map((reply) => (reply !== undefined && "bucket" in reply ? reply : null));
      const refusal = firstRefusal(limits, refusals);
      if (refusal === undefined) throw new Error("refused without a limit");
      return refusal;
    },
    async commit(part, charge, options) {
      const { first, at: time = "", ago = 0, body } = charge;
      const reply = await call("ledger_commit", part, [chargeText(first), time, ago, body], options);
      expectOk(reply);
      const [at, seq, writtenAt] = reply.values;
      part.chargedAt = replyNumber(at);
      note(part, "charge", part.chargedAt, replyText(seq), replyNumber(writtenAt), body);
      return bucketsIn(reply.values, 3, part.view.limits);
    },
    async grow(part, held, extra) {
      const more = extra === null ? "" : chargeText(extra);
      const reply = await call("ledger_grow", part, [amountsText(held), more, leaseMs, part.member]);
      if (reply.word === "FULL") return noRoom(part, reply);
      expectOk(reply);
      return null;
    },
    settle,
  };

  /** @param pair another account is asked at the same time: then either confirm or settle follows */
  async function reserveOne(part: HoldPart, bound: string, pair: boolean, keepMs: number) {
    const reply = await call("ledger_reserve", part, [bound, keepMs, part.member, pair ? 1 : ""]);
    if (reply.word === "FULL") return noRoom(part, reply);
    expectOk(reply);
    return bucketsIn(reply.values, 0, part.view.limits);
  }

  /** All accounts have agreed. Sent, and not awaited: if it is lost, other refusals take a moment longer. */
  function confirm({ view, keys }: HoldPart): void {
    redis.call("ledger_confirm", [...view.counts, ...keys], []).catch(() => undefined);
  }

  async function settle(part: HoldPart, charge: FinalCharge | null): Promise<readonly BucketState[] | undefined> {
    const args = [part.member, rememberedMs, ...(charge === null ? noFinal : finalArgs(part, charge))];
    const reply = await call("ledger_settle", part, args);
    if (reply.word === "DONE" || reply.word === "GONE") return undefined;
    expectOk(reply);
    const [time, at, chargeSeq, seq] = reply.values;
    if (charge !== null && replyText(at) !== "") {
      const writtenAt = replyNumber(time);
      part.chargedAt = replyNumber(at);
      if (charge.first !== undefined)
        note(part, "charge", part.chargedAt, replyText(chargeSeq), writtenAt, charge.first.body);
      note(part, "settle", part.chargedAt, replyText(seq), writtenAt, charge.body);
    }
    return bucketsIn(reply.values, 4, part.view.limits);
  }

  function finalArgs({ chargedAt }: HoldPart, { final, body, first, shared, fresh }: FinalCharge) {
    const flags = [shared ? 1 : "", fresh ? 1 : ""];
    const made =
      first === undefined
        ? ["", "", "", "", ""]
        : [chargeText(first.first), chargedAt ?? "", first.at ?? "", first.ago ?? 0, first.body];
    return [chargeText(final), body, ...flags, ...made];
  }
}

/** The first of the request's limits for which a part has no room. */
export function firstRefusal(
  limits: readonly QuotaLimit[],
  parts: readonly (NoRoom | null | undefined)[],
): Refusal | undefined {
  const next = parts.map(() => 0);
  for (const limit of limits) {
    const part = limit.group === undefined ? 0 : 1;
    const place = next[part] ?? 0;
    next[part] = place + 1;
    const refusal = parts[part];
    if (refusal?.index === place) return { ...refusal, limit };
  }
  return undefined;
}

/** What a release has in the place of a final charge. */
const noFinal = ["", "", "", "", "", "", "", "", ""];

/** The name of a hold's key: both parts of a request may be in one tag. */
export function holdName([id, account]: LeaseName): string {
  return isGroupAccount(account) ? `${id}@` : id;
}

function noRoom({ view }: HoldPart, { values }: AccountReply): NoRoom {
  const index = replyNumber(values[0]);
  const [bucket] = bucketsIn(values, 2, view.limits.slice(index, index + 1));
  if (bucket === undefined) throw new RedisReplyError("expected one of the limits");
  return { index, unsure: replyText(values[1]) === "1", bucket };
}

function expectOk({ word }: AccountReply): void {
  if (word === "DONE") throw new HoldEndedError("the reservation has ended");
  if (word !== "OK") throw new RedisReplyError(`unexpected reply ${word}`);
}
