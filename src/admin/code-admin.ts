import type { Account } from "../identity/account-schema.ts";
import { type CodeBatch, type Codes, type CodeUse, newBatchId, newCode, parseCode } from "../identity/codes.ts";
import { type Groups, isMember } from "../identity/groups.ts";
import type { LoginGuard } from "../identity/login-guard.ts";
import type { Users } from "../identity/users.ts";
import type { GrantConfig } from "../config/schema.ts";
import { AppError } from "../errors.ts";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import { createPeriods, type Per } from "../quota/periods.ts";
import type { BucketState, Ledger, QuotaLimit } from "../quota/ledger.ts";
import type { Metric } from "../quota/metrics.ts";
import type { Actor, Audit } from "./audit.ts";

/** What an operator says of new codes. */
interface NewCodes {
  readonly name: string;
  readonly count: number;
  readonly uses: number;
  readonly metric: Metric;
  readonly per: Per;
  /** Cost in units of the currency. */
  readonly amount: number;
  readonly currency?: string | undefined;
  readonly creditDays?: number | undefined;
  /** ms since the epoch. */
  readonly expiresAt?: number | undefined;
  readonly group?: string | undefined;
  readonly tier?: string | undefined;
}

export const codeStates = ["unused", "used", "used_up", "expired", "disabled"] as const;

/** A code as operators see it: never the code itself. */
export interface CodeView {
  /** The batch's id, and the number of the code in it. */
  readonly id: string;
  readonly batch: CodeBatch;
  readonly state: (typeof codeStates)[number];
  readonly uses: readonly CodeUse[];
}

/** A credit that a user has just got. */
interface Redeemed {
  readonly id: string;
  readonly grant: GrantConfig;
  readonly before: BucketState | undefined;
  readonly after: BucketState | undefined;
}

/** Redemption codes: quota that somebody hands out, or sells. */
export interface CodeAdmin {
  /** Makes codes. They are returned once, and kept as digests. Throws AppError `invalid_request`, `storage_unavailable`. */
  create(actor: Actor, codes: NewCodes): Promise<{ readonly batch: CodeBatch; readonly codes: readonly string[] }>;
  /** The newest first. @param cursor id of the last code of the page before */
  list(
    cursor: string | undefined,
    limit: number,
  ): Promise<{ readonly codes: readonly CodeView[]; readonly next: string | null }>;
  /** Takes a code, or a whole batch, out of use. What was redeemed stays. Throws AppError `not_found`. */
  disable(actor: Actor, id: string): Promise<void>;
  /**
   * Gives the user what a code is worth, exactly once, whatever fails meanwhile: the use is stored first, then the grant
   * in the user's account, under the code's id. A use without its grant gets it by the next try, or the next start.
   *
   * @throws AppError `code_invalid` with a reason, `invalid_request` (no limit that it could add to), `login_blocked` after
   * too many wrong codes, `storage_unavailable`
   */
  redeem(actor: Actor, account: Account, text: string): Promise<Redeemed>;
  /** Gives what a crash has left without its grant. */
  recover(): Promise<void>;
}

export interface CodeAdminOptions {
  readonly codes: Codes;
  readonly users: Pick<Users, "get" | "update">;
  readonly groups: Pick<Groups, "get">;
  readonly ledger: Pick<Ledger, "buckets">;
  readonly loginGuard: Pick<LoginGuard, "start">;
  readonly limitsOf: (account: Account) => readonly QuotaLimit[];
  readonly tierNames: () => readonly string[];
  readonly quota: { readonly timezone: string; readonly monthly_reset_day: number; readonly currency: string };
  readonly clock: Clock;
  readonly log: Log;
  readonly audit: Audit;
}

const dayMs = 86_400_000;
const maxBatches = 5000;

export function createCodeAdmin(options: CodeAdminOptions): CodeAdmin {
  const { codes, users, groups, ledger, loginGuard, limitsOf, quota, clock, audit } = options;
  const periodAt = createPeriods({ timezone: quota.timezone, monthlyResetDay: quota.monthly_reset_day });

  function stateOf(batch: CodeBatch, index: number): CodeView["state"] {
    const code = batch.codes[index];
    if (code === undefined || code.disabled) return "disabled";
    if (code.uses.length >= batch.max_uses) return "used_up";
    if (batch.expires_at !== null && batch.expires_at <= clock.now()) return "expired";
    return code.uses.length > 0 ? "used" : "unused";
  }

  function grantOf(batch: CodeBatch, index: number, { until }: CodeUse): GrantConfig {
    return {
      metric: batch.metric as Metric,
      per: batch.per as Per,
      amount: batch.amount,
      ...(batch.currency === null ? {} : { currency: batch.currency }),
      ...(until === null ? {} : { until: new Date(until) }),
      reason: `code ${idOf(batch, index)}`,
    };
  }

  /** Whom the code is for. */
  async function checkEligible({ group: name, tier }: CodeBatch, account: Account): Promise<void> {
    if (tier !== null && account.quota_tier !== tier) throw refusal("not_for_you", "This code is for another tier.");
    if (name === null) return;
    const group = await groups.get(name);
    if (group === undefined || !isMember(group, account))
      throw refusal("not_for_you", "This code is for members of another group.");
  }

  function limitFor({ metric, per, currency }: CodeBatch, account: Account): QuotaLimit {
    const limit = limitsOf(account).find(
      (one) => one.metric === metric && one.per === per && (currency === null || one.currency === currency),
    );
    if (limit !== undefined) return limit;
    const of = currency === null ? metric : `${metric} in ${currency}`;
    throw new AppError("invalid_request", {
      param: "code",
      message: `This code adds to a limit of ${of} per ${per}, and you have none. It has not been used.`,
    });
  }

  /** Stores the use, or finds the user's own that has not got its grant yet. The step that decides who was first. */
  async function claim(batchId: string, index: number, user: string): Promise<CodeUse> {
    const found: { use?: CodeUse } = {};
    await codes.change(batchId, (batch) => {
      const code = batch?.codes[index];
      if (batch === undefined || code === undefined) throw unknownCode();
      const own = code.uses.find((use) => use.user === user);
      if (own?.done === true) throw redeemedBefore();
      if (own !== undefined) {
        found.use = own;
        return undefined;
      }
      const state = stateOf(batch, index);
      if (state === "disabled") throw refusal(state, "This code has been disabled.");
      if (state === "expired") throw refusal(state, "This code has expired.");
      if (state === "used_up") throw refusal(state, "This code has been used.");
      const at = clock.now();
      const until = batch.credit_days === null ? periodAt(batch.per as Per, at).end : at + batch.credit_days * dayMs;
      const use = (found.use = { user, at, until, done: false });
      return withCode(batch, index, { ...code, uses: [...code.uses, use] });
    });
    if (found.use === undefined) throw unknownCode();
    return found.use;
  }

  /**
   * Adds the grant unless the account has it, then notes that it has. Both may be repeated. Returns whether it was this
   * call that has noted it: of several at once only one has.
   */
  async function credit(batch: CodeBatch, index: number, use: CodeUse): Promise<boolean> {
    const grant = grantOf(batch, index, use);
    const noted = { here: false };
    // One that has ended may have been removed from the account: it must not come again.
    if (use.until === null || use.until > clock.now()) {
      await users.update(use.user, ({ grants = [] }) =>
        grants.some(({ reason }) => reason === grant.reason) ? {} : { grants: [...grants, grant] },
      );
    }
    await codes.change(batch.id, (now) => {
      const code = now?.codes[index];
      noted.here = code?.uses.some((one) => one.user === use.user && !one.done) === true;
      if (now === undefined || code === undefined || !noted.here) return undefined;
      const uses = code.uses.map((one) => (one.user === use.user ? { ...one, done: true } : one));
      return withCode(now, index, { ...code, uses });
    });
    return noted.here;
  }

  /** The code's place. What is unknown counts as a wrong password does. */
  async function find({ by: user, ip, traceId }: Actor, text: string): Promise<{ batch: CodeBatch; index: number }> {
    const attempt = await loginGuard.start({ user, known: true, ip, traceId });
    try {
      const parsed = parseCode(text);
      const batch = parsed === undefined ? undefined : await codes.get(parsed.batch);
      const index = batch?.codes.findIndex(({ digest }) => digest === parsed?.digest) ?? -1;
      if (batch !== undefined && index >= 0) {
        // Not a success: that would forgive wrong passwords.
        await attempt.dropped();
        return { batch, index };
      }
    } catch (error) {
      await Promise.resolve(attempt.dropped()).catch(() => undefined);
      throw error;
    }
    await attempt.failed();
    throw unknownCode();
  }

  return {
    async create(actor, { name, count, uses, metric, per, amount, currency, creditDays, expiresAt, group, tier }) {
      const now = clock.now();
      if (expiresAt !== undefined && expiresAt <= now)
        throw new AppError("invalid_request", { param: "expires_at", message: "expires_at lies in the past." });
      if (group !== undefined && (await groups.get(group)) === undefined)
        throw new AppError("invalid_request", { param: "group", message: `There is no group ${group}.` });
      if (tier !== undefined && !options.tierNames().includes(tier))
        throw new AppError("invalid_request", { param: "tier", message: `There is no tier ${tier}.` });
      if ((await codes.ids()).length >= maxBatches)
        throw new AppError("conflict", { message: `There are ${maxBatches} batches of codes already.` });
      const id = newBatchId(now);
      const texts = Array.from({ length: count }, () => newCode(id));
      const made: CodeBatch = {
        ...{ id, kind: "quota", name, created_at: now, by: actor.by, metric, per, amount },
        currency: metric === "cost" ? (currency ?? quota.currency) : null,
        credit_days: creditDays ?? null,
        expires_at: expiresAt ?? null,
        ...{ group: group ?? null, tier: tier ?? null, max_uses: uses },
        codes: texts.map((text) => ({ digest: parseCode(text)?.digest ?? "", disabled: false, uses: [] })),
      };
      const batch = await codes.change(id, (taken) => {
        if (taken !== undefined)
          throw new AppError("conflict", { message: "Another batch was made just now. Try again." });
        return made;
      });
      const after = { name, count, uses, metric, per, amount, currency: made.currency, group, tier };
      await audit.record(actor, { action: "codes.created", user: null, subject: id, before: null, after });
      return { batch: batch ?? made, codes: texts };
    },
    async list(cursor, limit) {
      const [fromBatch = "", fromIndex = ""] = cursor?.split("-") ?? [];
      if (cursor !== undefined && !/^[0-9a-z]{8}-\d{1,4}$/.test(cursor))
        throw new AppError("invalid_request", { param: "cursor", message: "This is no cursor of this list." });
      const found: CodeView[] = [];
      for (const id of [...(await codes.ids())].reverse()) {
        if (cursor !== undefined && id > fromBatch) continue;
        const batch = await codes.get(id);
        if (batch === undefined) continue;
        const begin = id === fromBatch ? Number(fromIndex) : 0;
        for (let index = begin; index < batch.codes.length; index++) {
          if (found.length === limit) return { codes: found, next: found.at(-1)?.id ?? null };
          const view = { id: idOf(batch, index), batch, state: stateOf(batch, index) };
          found.push({ ...view, uses: batch.codes[index]?.uses ?? [] });
        }
      }
      return { codes: found, next: null };
    },
    async disable(actor, id) {
      const [, batchId = "", number] = /^([0-9a-z]{8})(?:-(\d{1,4}))?$/.exec(id) ?? [];
      const index = number === undefined ? undefined : Number(number) - 1;
      const done = { isThere: false };
      await codes.change(batchId, (batch) => {
        if (batch === undefined || (index !== undefined && batch.codes[index] === undefined)) return undefined;
        done.isThere = true;
        const disabled = batch.codes.map((code, at) =>
          index === undefined || at === index ? { ...code, disabled: true } : code,
        );
        return { ...batch, codes: disabled };
      });
      if (!done.isThere) throw new AppError("not_found", { message: `There is no code ${id}.` });
      await audit.record(actor, {
        ...{
          action: "codes.disabled",
          user: null,
          subject: id,
          before: { disabled: false },
          after: { disabled: true },
        },
      });
    },
    async redeem(actor, account, text) {
      const { batch, index } = await find(actor, text);
      await checkEligible(batch, account);
      const limit = limitFor(batch, account);
      const user = account.username;
      const bucketOf = async (of: Account): Promise<BucketState | undefined> =>
        (await ledger.buckets(user, limitsOf(of))).find(
          (one) =>
            one.limit.metric === limit.metric && one.limit.per === limit.per && one.limit.currency === limit.currency,
        );
      const before = await bucketOf(account);
      const use = await claim(batch.id, index, user);
      if (!(await credit(batch, index, use))) throw redeemedBefore();
      const grant = grantOf(batch, index, use);
      const { reason = "", ...after } = grant;
      const subject = idOf(batch, index);
      await audit.record(actor, { action: "code.redeemed", user, subject, before: null, after, reason });
      const now = await users.get(user);
      return { id: subject, grant, before, after: now === undefined ? undefined : await bucketOf(now) };
    },
    async recover() {
      for (const id of await codes.ids()) {
        const batch = await codes.get(id);
        for (const [index, code] of (batch?.codes ?? []).entries()) {
          for (const use of code.uses) {
            if (batch === undefined || use.done) continue;
            await credit(batch, index, use).catch((err: unknown) => {
              options.log.warn(
                { code: idOf(batch, index), user: use.user, err },
                "a redeemed code could not be credited",
              );
            });
          }
        }
      }
    },
  };
}

function withCode(batch: CodeBatch, index: number, code: CodeBatch["codes"][number]): CodeBatch {
  return { ...batch, codes: batch.codes.map((one, at) => (at === index ? code : one)) };
}

/** Counted from 1. */
function idOf({ id }: CodeBatch, index: number): string {
  return `${id}-${index + 1}`;
}

function redeemedBefore(): AppError {
  return refusal("redeemed", "You have redeemed this code already.");
}

function unknownCode(): AppError {
  return refusal("unknown", "There is no such code.");
}

function refusal(reason: string, message: string): AppError {
  return new AppError("code_invalid", { param: "code", message, details: { reason } });
}
