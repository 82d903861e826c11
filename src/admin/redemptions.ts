import type { Account } from "../identity/account-schema.ts";
import { type Codes, type Credit, parseCode, type RedemptionBatch } from "../identity/codes.ts";
import { type Groups, isMember } from "../identity/groups.ts";
import type { LoginGuard } from "../identity/login-guard.ts";
import type { Users } from "../identity/users.ts";
import { type GrantConfig, grantsSchema, maxGrants } from "../config/schema.ts";
import { AppError } from "../errors.ts";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import { createPeriods, type Per } from "../quota/periods.ts";
import type { BucketState, Ledger, QuotaLimit } from "../quota/ledger.ts";
import type { Metric } from "../quota/metrics.ts";
import type { Actor, Audit } from "./audit.ts";
import { checkUsableCode, codeId, codeRefusal, unknownCode, withUses } from "./code-batch.ts";
import { createGrantTimes } from "./quota-grants.ts";

/** A credit that a user has just got. */
interface Redeemed {
  readonly id: string;
  readonly grant: GrantConfig;
  readonly before: BucketState | undefined;
  readonly after: BucketState | undefined;
}

/** Redemption codes: quota that somebody hands out, or sells. */
export interface Redemptions {
  /**
   * Gives the user what a code is worth, exactly once, whatever fails meanwhile: the use is stored first, then the grant
   * in the user's account, under the code's id. A use without its grant gets it by the next try, or the next start.
   *
   * @throws AppError `code_invalid` with a reason, `invalid_request` (no limit that it could add to), `conflict` (no room
   * in the account), `login_blocked` after too many wrong codes, `storage_unavailable`
   */
  redeem(actor: Actor, account: Account, text: string): Promise<Redeemed>;
  /** Gives what a crash has left without its grant, or takes the use back where no grant can be of that worth. */
  recover(): Promise<void>;
}

export interface RedemptionOptions {
  readonly codes: Codes;
  readonly users: Pick<Users, "get" | "update">;
  readonly groups: Pick<Groups, "get">;
  readonly ledger: Pick<Ledger, "buckets">;
  readonly loginGuard: Pick<LoginGuard, "start">;
  readonly limitsOf: (account: Account) => readonly QuotaLimit[];
  readonly quota: { readonly timezone: string; readonly monthly_reset_day: number };
  readonly clock: Clock;
  readonly log: Log;
  readonly audit: Audit;
}

const dayMs = 86_400_000;

export function createRedemptions(options: RedemptionOptions): Redemptions {
  const { codes, users, groups, ledger, loginGuard, limitsOf, quota, clock, audit } = options;
  const periodAt = createPeriods({ timezone: quota.timezone, monthlyResetDay: quota.monthly_reset_day });
  const { current } = createGrantTimes(quota.timezone, clock);

  function grantOf(batch: RedemptionBatch, index: number, { until }: Pick<Credit, "until">): GrantConfig {
    return {
      metric: batch.metric as Metric,
      per: batch.per as Per,
      amount: batch.amount,
      ...(batch.currency === null ? {} : { currency: batch.currency }),
      ...(until === null ? {} : { until: new Date(until) }),
      reason: `code ${codeId(batch, index)}`,
    };
  }

  /** Whom the code is for. */
  async function checkEligible({ group: name, tier }: RedemptionBatch, account: Account): Promise<void> {
    if (tier !== null && account.quota_tier !== tier)
      throw codeRefusal("not_for_you", "This code is for another tier.");
    if (name === null) return;
    const group = await groups.get(name);
    if (group === undefined || !isMember(group, account))
      throw codeRefusal("not_for_you", "This code is for members of another group.");
  }

  function limitFor({ metric, per, currency }: RedemptionBatch, account: Account): QuotaLimit {
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

  /** Whether a grant can give what the codes are worth: earlier versions made some that are worth more. */
  function canBeGranted(batch: RedemptionBatch): boolean {
    return grantsSchema.safeParse([grantOf(batch, 0, { until: null })]).success;
  }

  /** Takes back the uses of a code that no grant can follow. Returns whose they were. */
  async function takeBack(batch: RedemptionBatch, index: number): Promise<readonly string[]> {
    const found: { users: readonly string[] } = { users: [] };
    await codes.change(batch.id, (now) => {
      const code = now?.kind === "quota" ? now.codes[index] : undefined;
      if (now?.kind !== "quota" || code === undefined) return undefined;
      found.users = code.uses.filter(({ done }) => !done).map(({ user }) => user);
      if (found.users.length === 0) return undefined;
      return withUses(
        now,
        index,
        code.uses.filter(({ done }) => done),
      );
    });
    return found.users;
  }

  function record(actor: Actor, batch: RedemptionBatch, index: number, use: Credit): Promise<void> {
    const { reason = "", ...after } = grantOf(batch, index, use);
    const subject = codeId(batch, index);
    return audit.record(actor, { action: "code.redeemed", user: use.user, subject, before: null, after, reason });
  }

  async function complete(batch: RedemptionBatch, index: number, use: Credit): Promise<void> {
    // The address is not known any more.
    const actor = { by: use.user, ip: "", traceId: "" };
    if (await credit(batch, index, use)) await record(actor, batch, index, use);
  }

  /** Before the use is stored, which would have to wait for its grant. */
  function checkRoom(account: Account): void {
    if (current(account).length < maxGrants) return;
    const message = `Your account has ${maxGrants} grants already, and no room for more. The code has not been used.`;
    throw new AppError("conflict", { param: "code", message });
  }

  /** Stores the use, or finds the user's own that has not got its grant yet. The step that decides who was first. */
  async function claim(batchId: string, index: number, user: string): Promise<Credit> {
    const found: { use?: Credit } = {};
    await codes.change(batchId, (batch) => {
      const code = batch?.kind === "quota" ? batch.codes[index] : undefined;
      if (batch?.kind !== "quota" || code === undefined) throw unknownCode();
      const own = code.uses.find((use) => use.user === user);
      if (own?.done === true) throw redeemedBefore();
      if (own !== undefined) {
        found.use = own;
        return undefined;
      }
      checkUsableCode(batch, index, clock.now());
      const at = clock.now();
      const until =
        batch.credit_days === null ? periodAt(batch.per as Per, at).end : at + Math.round(batch.credit_days * dayMs);
      const use = (found.use = { user, at, until, done: false });
      return withUses(batch, index, [...code.uses, use]);
    });
    if (found.use === undefined) throw unknownCode();
    return found.use;
  }

  /**
   * Adds the grant unless the account has it, then notes that it has. Both may be repeated. Returns whether it was this
   * call that has noted it: of several at once only one has.
   */
  async function credit(batch: RedemptionBatch, index: number, use: Credit): Promise<boolean> {
    const grant = grantOf(batch, index, use);
    const noted = { here: false };
    // One that has ended may have been removed from the account: it must not come again.
    if (use.until === null || use.until > clock.now()) {
      await users.update(use.user, (account) =>
        account.grants?.some(({ reason }) => reason === grant.reason) === true
          ? {}
          : { grants: [...current(account), grant] },
      );
    }
    await codes.change(batch.id, (now) => {
      const code = now?.kind === "quota" ? now.codes[index] : undefined;
      noted.here = code?.uses.some((one) => one.user === use.user && !one.done) === true;
      if (now?.kind !== "quota" || code === undefined || !noted.here) return undefined;
      const uses = code.uses.map((one) => (one.user === use.user ? { ...one, done: true } : one));
      return withUses(now, index, uses);
    });
    return noted.here;
  }

  /** The code's place. What is unknown counts as a wrong password does. */
  async function find(
    { by: user, ip, traceId }: Actor,
    text: string,
  ): Promise<{ batch: RedemptionBatch; index: number }> {
    const attempt = await loginGuard.start({ user, known: true, ip, traceId });
    try {
      const parsed = parseCode(text);
      const batch = parsed === undefined ? undefined : await codes.get(parsed.batch);
      const index = batch?.codes.findIndex(({ digest }) => digest === parsed?.digest) ?? -1;
      if (batch !== undefined && index >= 0) {
        // Not a success: that would forgive wrong passwords.
        await attempt.dropped();
        if (batch.kind === "quota") return { batch, index };
        throw codeRefusal("invitation", "This code is an invitation: it registers a new account, and adds no quota.");
      }
    } catch (error) {
      await Promise.resolve(attempt.dropped()).catch(() => undefined);
      throw error;
    }
    await attempt.failed();
    throw unknownCode();
  }

  return {
    async redeem(actor, account, text) {
      const { batch, index } = await find(actor, text);
      await checkEligible(batch, account);
      if (!canBeGranted(batch)) {
        await takeBack(batch, index);
        const message = "This code is worth more than a grant can be: ask for another one. It has not been used.";
        throw codeRefusal("outdated", message);
      }
      const limit = limitFor(batch, account);
      checkRoom(account);
      const user = account.username;
      const bucketOf = async (of: Account): Promise<BucketState | undefined> =>
        (await ledger.buckets(user, limitsOf(of))).find(
          (one) =>
            one.limit.metric === limit.metric && one.limit.per === limit.per && one.limit.currency === limit.currency,
        );
      const before = await bucketOf(account);
      const use = await claim(batch.id, index, user);
      if (!(await credit(batch, index, use))) throw redeemedBefore();
      await record(actor, batch, index, use);
      const grant = grantOf(batch, index, use);
      const now = await users.get(user);
      return { id: codeId(batch, index), grant, before, after: now === undefined ? undefined : await bucketOf(now) };
    },
    async recover() {
      for (const id of await codes.ids()) {
        const batch = await codes.get(id);
        if (batch?.kind !== "quota") continue;
        const isGrantable = canBeGranted(batch);
        for (const [index, code] of batch.codes.entries()) {
          if (!isGrantable && code.uses.some(({ done }) => !done)) {
            const facts = { code: codeId(batch, index), users: await takeBack(batch, index) };
            if (facts.users.length > 0)
              options.log.warn(facts, "a redeemed code is worth more than a grant can be, and is unused again");
            continue;
          }
          for (const use of code.uses) {
            if (use.done) continue;
            await complete(batch, index, use).catch((err: unknown) => {
              const facts = { code: codeId(batch, index), user: use.user, err };
              options.log.warn(facts, "a redeemed code could not be credited");
            });
          }
        }
      }
    },
  };
}

function redeemedBefore(): AppError {
  return codeRefusal("redeemed", "You have redeemed this code already.");
}
