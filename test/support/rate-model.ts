import type { RateLimitRequest, RateUse } from "../../src/limits/rate-limiter.ts";
import type { RateRule } from "../../src/limits/rate-rules.ts";

/** What is taken of a bucket, in units times `perMs`, as counted at a time. */
interface Level {
  level: bigint;
  at: bigint;
}

interface ModelTaking {
  readonly rule: RateRule;
  readonly key: string;
  readonly units: bigint;
  readonly wait: bigint;
  readonly at: bigint;
}

/** What a request has taken in the model. */
export interface ModelTicket {
  readonly request: RateLimitRequest;
  takings: readonly ModelTaking[];
  provider: string | null;
}

export type ModelResult =
  | { readonly ticket: ModelTicket }
  | { readonly waitMs: number; readonly isTooLarge: boolean; readonly refusing: readonly string[] };

/**
 * Leaky buckets in exact fractions, written as plainly as possible: every rule is a map of levels, nothing is ever
 * forgotten, every request looks at every rule. Trust is left out.
 */
export class RateModel {
  readonly #rules: readonly RateRule[];
  readonly #levels = new Map<RateRule, Map<string, Level>>();
  /** What was put back lately although it had flowed off. */
  readonly #putBack = new Map<RateRule, Map<string, Level>>();

  constructor(rules: readonly RateRule[]) {
    this.#rules = rules;
    for (const rule of rules) {
      this.#levels.set(rule, new Map());
      this.#putBack.set(rule, new Map());
    }
  }

  take(request: RateLimitRequest, now: number): ModelResult {
    const { group } = request;
    const rules = this.#rules.filter(({ groups }) => groups === null || (group !== null && groups.includes(group)));
    const plain = rules.filter(({ by }) => !by.includes("provider"));
    const byProvider = rules.filter(({ by }) => by.includes("provider"));
    const own = plain.flatMap((rule) => this.#look(rule, request, "", now));
    const choices = request.providers.map((provider) => ({
      provider,
      takings: byProvider.flatMap((rule) => this.#look(rule, request, provider, now)),
    }));
    const first = choices.find(({ takings }) => takings.every(({ wait }) => wait === 0n));
    const soonest = [...choices].sort(
      (a, b) => Number(tooLarge(a.takings)) - Number(tooLarge(b.takings)) || longest(a.takings) - longest(b.takings),
    )[0];
    const chosen = first ?? soonest;
    const takings = [...own, ...(chosen?.takings ?? [])];
    const refusing = takings.filter(({ wait }) => wait > 0n);
    if (refusing.length > 0) {
      const isTooLarge = tooLarge(refusing);
      return { waitMs: longest(takings), isTooLarge, refusing: refusing.map(({ rule }) => rule.name) };
    }
    for (const { rule, key, units } of takings) this.#add(rule, key, units, now);
    return { ticket: { request, takings, provider: byProvider.length > 0 ? (chosen?.provider ?? null) : null } };
  }

  /** Moves a ticket to another provider; returns the wait in ms if that has no room, and null if it is done. */
  move(ticket: ModelTicket, to: string, now: number): number | null {
    const { request, takings, provider } = ticket;
    if (provider === null || provider === to) return null;
    const { group } = request;
    const taken = this.#rules
      .filter(({ by, groups }) => by.includes("provider") && (groups?.includes(group ?? "") ?? true))
      .flatMap((rule) => this.#look(rule, request, to, now));
    if (taken.some(({ wait }) => wait > 0n)) return longest(taken);
    for (const { rule, key, units } of taken) this.#add(rule, key, units, now);
    const left = takings.filter(({ rule }) => rule.by.includes("provider"));
    for (const taking of left) this.#giveBack(taking, taking.units, now);
    ticket.takings = [...takings.filter((one) => !left.includes(one)), ...taken];
    ticket.provider = to;
    return null;
  }

  settle({ request, takings }: ModelTicket, use: RateUse, now: number): void {
    for (const taking of takings) {
      const { rule, key, units } = taking;
      const counted = unitsOf(rule, request, use.tokens, use.outputTokens);
      const used = !use.wasSent ? 0n : rule.metric === "requests" ? units : counted;
      if (used < units) this.#giveBack(taking, units - used, now);
      else this.#add(rule, key, used - units, now);
    }
  }

  /** Buckets of a rule, by name, with something taken. */
  used(name: string, now: number): number {
    const [rule] = this.#rules.filter((one) => one.name === name);
    if (rule === undefined) throw new Error(name);
    return [...(this.#levels.get(rule)?.keys() ?? [])].filter((key) => this.#level(rule, key, now) > 0n).length;
  }

  /** What is left of a rule for a request, in whole units, and ms until nothing is taken. */
  state(
    name: string,
    request: RateLimitRequest,
    now: number,
  ): { readonly remaining: number; readonly resetMs: number } {
    const [rule] = this.#rules.filter((one) => one.name === name);
    const key = rule === undefined ? null : keyOf(rule, request, "");
    if (rule === undefined || key === null) throw new Error(name);
    const level = this.#level(rule, key, now);
    const left = roomOf(rule) - level;
    return {
      remaining: left < 0n ? 0 : Number(left / BigInt(rule.perMs)),
      resetMs: Number(ceilDiv(level, BigInt(rule.max))),
    };
  }

  #look(rule: RateRule, request: RateLimitRequest, provider: string, now: number): readonly ModelTaking[] {
    if (rule.tiers !== null && !rule.tiers.includes(request.tier)) return [];
    const bound = unitsOf(rule, request, request.tokens, request.outputTokens);
    const key = keyOf(rule, request, provider);
    if (bound === 0n || key === null) return [];
    const burst = BigInt(rule.burst);
    const clamps = request.isOwnBound && rule.metric !== "requests" && bound > burst;
    const units = clamps ? burst : bound;
    const level = this.#level(rule, key, now);
    const over = units > burst ? level : level + units * BigInt(rule.perMs) - roomOf(rule);
    const wait = over > 0n ? ceilDiv(over, BigInt(rule.max)) : 0n;
    return [{ rule, key, units, wait: units > burst && wait === 0n ? 1n : wait, at: BigInt(now) }];
  }

  #level(rule: RateRule, key: string, now: number): bigint {
    return leftOf(this.#levels.get(rule)?.get(key), BigInt(rule.max), now);
  }

  #add(rule: RateRule, key: string, units: bigint, now: number): void {
    const level = this.#level(rule, key, now) + units * BigInt(rule.perMs);
    const most = 2n * roomOf(rule);
    const next = level > most ? most : level;
    this.#levels.get(rule)?.set(key, { level: next, at: BigInt(now) });
  }

  /** Whole what has not flowed off by 60 times the rate; of the rest one burst, and 59 times the rate. */
  #giveBack({ rule, key, units, at }: ModelTaking, unusedUnits: bigint, now: number): void {
    const [max, perMs] = [BigInt(rule.max), BigInt(rule.perMs)];
    const unused = unusedUnits * perMs;
    const own = least(unused, notBelow0(units * perMs - 60n * max * (BigInt(now) - at)));
    const level = notBelow0(this.#level(rule, key, now) - own);
    const before = leftOf(this.#putBack.get(rule)?.get(key), 59n * max, now);
    const more = least(unused - own, level, roomOf(rule) - before);
    this.#putBack.get(rule)?.set(key, { level: before + more, at: BigInt(now) });
    this.#levels.get(rule)?.set(key, { level: level - more, at: BigInt(now) });
  }
}

function leftOf(known: Level | undefined, speed: bigint, now: number): bigint {
  return known === undefined ? 0n : notBelow0(known.level - speed * (BigInt(now) - known.at));
}

function notBelow0(figure: bigint): bigint {
  return figure < 0n ? 0n : figure;
}

function least(...figures: readonly [bigint, ...bigint[]]): bigint {
  return figures.reduce((a, b) => (a < b ? a : b));
}

function roomOf({ burst, perMs }: RateRule): bigint {
  return BigInt(burst) * BigInt(perMs);
}

function longest(takings: readonly ModelTaking[]): number {
  return Math.max(0, ...takings.map(({ wait }) => Number(wait)));
}

function tooLarge(takings: readonly ModelTaking[]): boolean {
  return takings.some(({ rule, units }) => units > BigInt(rule.burst));
}

/** Models are compared by whole names here. */
function unitsOf(rule: RateRule, request: RateLimitRequest, tokens: number, outputTokens: number): bigint {
  const { models, weights, metric } = rule;
  if (models !== null && !models.includes(request.upstreamModel) && !models.includes(request.model)) return 0n;
  const weight = weights[request.upstreamModel] ?? weights[request.model] ?? 1;
  const counted = metric === "requests" ? 1 : metric === "tokens" ? tokens : outputTokens;
  return BigInt(weight) * BigInt(counted);
}

function keyOf(rule: RateRule, request: RateLimitRequest, provider: string): string | null {
  const parts = { ...request, key: request.apiKey, address: request.ip, provider, model: request.upstreamModel };
  const values = rule.by.map((scope) => parts[scope]);
  return values.includes(null) ? null : JSON.stringify(values);
}

function ceilDiv(a: bigint, b: bigint): bigint {
  return (a + b - 1n) / b;
}
