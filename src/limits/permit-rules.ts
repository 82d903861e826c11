import type { Config } from "../config/schema.ts";
import { AppError } from "../errors.ts";
import { createGlobMap, type GlobMap } from "../lib/globs.ts";
import type { PermitScope } from "./concurrency.ts";

/** The caps of a config on what runs at the same time. Immutable. */
export interface PermitRules {
  /** Default for users without a `max_parallel` of their own. */
  readonly maxParallel: number;
  /** The cap of all requests together; null: none. */
  readonly total: PermitScope | null;
  /** The cap of a model by its name after aliases; null: none. */
  modelScope(model: string): PermitScope | null;
  /** Whether any provider has a cap. */
  readonly capsProviders: boolean;
  /** The cap of a provider now, which is Infinity if it has none. */
  readonly providerScope: (name: string) => PermitScope;
  /** The share of a tier's users in the waiting line; 1 for a tier that is unknown. */
  weightOf(tier: string): number;
  /** How heavy a tier is among all: 0 is the lightest; tiers of one weight have one rank. */
  readonly rankOf: (tier: string) => number;
  /** How many ranks there are, at least 1. */
  readonly ranks: number;
  /** After how long a waiting stream gets its 200 and comments, in ms; 0: never. */
  readonly noticeAfterMs: number;
}

/**
 * @param capOf the cap of a provider now, which may adapt; Infinity if it has none
 */
export function createPermitRules(
  { concurrency, quota }: Pick<Config, "concurrency" | "quota">,
  capOf: (provider: string) => number,
): PermitRules {
  const { max_parallel, max_total, per_model, per_provider, notice_after_ms, adaptive } = concurrency;
  const modelMax: GlobMap<number> | null = Object.keys(per_model).length === 0 ? null : createGlobMap(per_model);
  const weights = new Map(Object.entries(quota.tiers).map(([name, { weight = 1 }]) => [name, weight]));
  const ranked = [...new Set(weights.values())].sort((a, b) => a - b);
  const weightOf = (tier: string): number => weights.get(tier) ?? 1;
  return {
    maxParallel: max_parallel,
    total: max_total === 0 ? null : { kind: "process", key: "", max: max_total },
    modelScope(model) {
      const max = modelMax?.(model);
      return max === undefined ? null : { kind: "model", key: model, max };
    },
    capsProviders: Object.keys(per_provider).length > 0 || adaptive.enabled,
    providerScope: (name) => ({ kind: "provider", key: name, max: capOf(name) }),
    weightOf,
    rankOf: (tier) => Math.max(0, ranked.indexOf(weightOf(tier))),
    ranks: Math.max(1, ranked.length),
    noticeAfterMs: notice_after_ms,
  };
}

/** How requests queue for a permit. */
export interface QueueRule {
  /** How long a request may wait for a permit, in ms; 0: not at all. */
  readonly maxWaitMs: number;
  /** How many requests of one user may wait, at one process. */
  readonly maxWaiting: number;
  /** How many requests may wait in all, at one process. */
  readonly maxWaitingTotal: number;
}

/** The rule of a config. */
export function queueRule({ max_wait_ms, max_waiting, max_waiting_total }: Config["concurrency"]): QueueRule {
  return { maxWaitMs: max_wait_ms, maxWaiting: max_waiting, maxWaitingTotal: max_waiting_total };
}

/** Longest Retry-After, in seconds. */
const maxRetryAfterSeconds = 60;

/**
 * The refusal, which names a scope without room but never whose it is.
 * @param expectedMs until there is room; null: unknown
 */
export function concurrencyExceeded(
  full: Pick<PermitScope, "kind" | "max"> | undefined,
  expectedMs: number | null,
): AppError {
  const seconds = expectedMs === null ? 1 : Math.ceil(expectedMs / 1000);
  return new AppError("concurrency_exceeded", {
    retryAfterSeconds: Math.min(maxRetryAfterSeconds, Math.max(1, seconds)),
    details: full === undefined ? {} : { scope: full.kind, max: full.max },
  });
}
