import { type CodeBatch, type Codes, newBatchId, newCode, parseCode } from "../identity/codes.ts";
import type { Groups } from "../identity/groups.ts";
import { AppError } from "../errors.ts";
import type { Clock } from "../lib/clock.ts";
import type { Per } from "../quota/periods.ts";
import type { Metric } from "../quota/metrics.ts";
import type { Actor, Audit } from "./audit.ts";
import { checkPricedCurrency, type PricedConfig } from "./priced-limits.ts";
import { codeId, type CodeState, codeState } from "./code-batch.ts";

/** What a redemption code adds. */
export interface QuotaOfCode {
  readonly kind: "quota";
  readonly metric: Metric;
  readonly per: Per;
  /** Cost in units of the currency. */
  readonly amount: number;
  readonly currency?: string | undefined;
  readonly creditDays?: number | undefined;
}

interface Invitation {
  readonly kind: "invitation";
  /** For operators. */
  readonly note: string;
}

/** What an operator says of new codes. */
interface NewCodes {
  readonly name: string;
  readonly count: number;
  readonly uses: number;
  readonly gives: QuotaOfCode | Invitation;
  /** ms since the epoch. */
  readonly expiresAt?: number | undefined;
  readonly group?: string | undefined;
  readonly tier?: string | undefined;
}

/** A code as operators see it: never the code itself. */
export interface CodeView {
  /** The batch's id, and the number of the code in it. */
  readonly id: string;
  readonly batch: CodeBatch;
  readonly state: CodeState;
  readonly uses: CodeBatch["codes"][number]["uses"];
}

/** Codes that somebody hands out, or sells: they add quota, or let strangers register. */
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
}

export interface CodeAdminOptions {
  readonly codes: Codes;
  readonly groups: Pick<Groups, "get">;
  readonly tierNames: () => readonly string[];
  /** The config in force. */
  readonly config: () => PricedConfig;
  readonly clock: Clock;
  readonly audit: Audit;
}

const maxBatches = 5000;

/** Ids of one second have two random digits: of 40 batches two would often have the same. */
const idAttempts = 100;

function freeId(taken: readonly string[], now: number): string {
  let id = newBatchId(now);
  for (let attempt = 1; attempt < idAttempts && taken.includes(id); attempt++) id = newBatchId(now);
  return id;
}

export function createCodeAdmin(options: CodeAdminOptions): CodeAdmin {
  const { codes, groups, config, clock, audit } = options;

  /** Refuses what could never be used as it is meant. */
  async function checkTarget({ gives, group: name, tier, expiresAt }: NewCodes, now: number): Promise<void> {
    if (expiresAt !== undefined && expiresAt <= now)
      throw new AppError("invalid_request", { param: "expires_at", message: "expires_at lies in the past." });
    if (gives.kind === "quota" && gives.metric === "cost") checkPricedCurrency("currency", gives.currency, config());
    if (tier !== undefined && !options.tierNames().includes(tier))
      throw new AppError("invalid_request", { param: "tier", message: `There is no tier ${tier}.` });
    if (name === undefined) return;
    const group = await groups.get(name);
    if (group === undefined)
      throw new AppError("invalid_request", { param: "group", message: `There is no group ${name}.` });
    if (gives.kind === "invitation" && group.origin !== "admin") {
      const message = `The group ${name} is one of config.toml, which the proxy does not write: expected one made by administrators.`;
      throw new AppError("invalid_request", { param: "group", message });
    }
  }

  return {
    async create(actor, wanted) {
      const { name, count, uses, gives, expiresAt, group, tier } = wanted;
      const now = clock.now();
      await checkTarget(wanted, now);
      await audit.check();
      const taken = await codes.ids();
      if (taken.length >= maxBatches)
        throw new AppError("conflict", { message: `There are ${maxBatches} batches of codes already.` });
      const id = freeId(taken, now);
      const texts = Array.from({ length: count }, () => newCode(id));
      const common = {
        id,
        name,
        created_at: now,
        by: actor.by,
        expires_at: expiresAt ?? null,
        max_uses: uses,
        group: group ?? null,
        tier: tier ?? null,
        codes: texts.map((text) => ({ digest: parseCode(text)?.digest ?? "", disabled: false, uses: [] })),
      };
      const made = gives.kind === "quota" ? { ...common, ...storedQuota(gives) } : { ...common, ...gives };
      const batch = await codes.change(id, (other) => {
        if (other !== undefined)
          throw new AppError("conflict", { message: "Another batch was made just now. Try again." });
        return made;
      });
      const stored = gives.kind === "quota" ? storedQuota(gives) : gives;
      const after = { name, count, uses, ...stored, expires_at: common.expires_at, group, tier };
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
          const view = { id: codeId(batch, index), batch, state: codeState(batch, index, clock.now()) };
          found.push({ ...view, uses: batch.codes[index]?.uses ?? [] });
        }
      }
      return { codes: found, next: null };
    },
    async disable(actor, id) {
      const [, batchId = "", number] = /^([0-9a-z]{8})(?:-(\d{1,4}))?$/.exec(id) ?? [];
      const index = number === undefined ? undefined : Number(number) - 1;
      const done = { isThere: false, isNews: false };
      await codes.change(batchId, (batch) => {
        if (batch === undefined || (index !== undefined && batch.codes[index] === undefined)) return undefined;
        done.isThere = true;
        done.isNews = batch.codes.some(({ disabled }, at) => !disabled && (index === undefined || at === index));
        return done.isNews ? withDisabled(batch, index) : undefined;
      });
      if (!done.isThere) throw new AppError("not_found", { message: `There is no code ${id}.` });
      if (!done.isNews) return;
      const [before, after] = [{ disabled: false }, { disabled: true }];
      await audit.record(actor, { action: "codes.disabled", user: null, subject: id, before, after });
    },
  };

  function storedQuota({ kind, metric, per, amount, currency, creditDays }: QuotaOfCode) {
    return {
      kind,
      metric,
      per,
      amount,
      currency: metric === "cost" ? (currency ?? config().quota.currency) : null,
      credit_days: creditDays ?? null,
    };
  }
}

/** @param index of the code; undefined: all of the batch */
function withDisabled(batch: CodeBatch, index: number | undefined): CodeBatch {
  const disable = <C extends { readonly disabled: boolean }>(list: readonly C[]): C[] =>
    list.map((code, at) => (index === undefined || at === index ? { ...code, disabled: true } : code));
  return batch.kind === "quota" ? { ...batch, codes: disable(batch.codes) } : { ...batch, codes: disable(batch.codes) };
}
