import type { RateLimitRefusal, RateLimitRequest, RateLimitState, RateTicket, RateUse } from "../rate-limiter.ts";
import type { RateRule } from "../rate-rules.ts";
import { type RatedRule, refusalOf, stateOf, stepsOf, type Taking, unitsOf, worstOf } from "../rate-terms.ts";

/** A rule in force, and where its buckets are. */
export interface RedisRule extends RatedRule {
  /** The beginning of the names of its buckets. */
  readonly id: string;
  /** Whether its buckets are in the slot of their user: then only that user's requests meet there. */
  readonly isPersonal: boolean;
}

/** What a request would take of a bucket, before it is known what has been taken of that. */
export type Ask = Pick<Taking<RedisRule>, "of" | "key" | "steps">;

/** What a request has taken of a bucket, and how many of these steps it has not used; negative: so many more it has. */
export interface Correction {
  readonly taking: Taking<RedisRule>;
  readonly unused: number;
}

/** A call of rates_take: what it asks of the buckets of one tag. */
export interface TakeCall {
  readonly tag: string;
  /** Identifies the call among all processes. */
  readonly id: string;
  /** The first always counts; of the others, one. */
  readonly groups: readonly (readonly Ask[])[];
  /** What is given back if it takes. */
  readonly returned: readonly Taking<RedisRule>[];
}

/** What came of it. */
export interface TakeReply {
  readonly isTaken: boolean;
  /** Index of the group chosen beside the first; 0: none. */
  readonly chosen: number;
  /** Of the first group, and of the chosen one. */
  readonly takings: readonly Taking<RedisRule>[];
}

/** The calls that a ticket makes as well. */
export interface RateCalls {
  take(call: TakeCall): Promise<TakeReply>;
  correct(tag: string, id: string, corrections: readonly Correction[]): Promise<void>;
  tagOf(ask: Pick<Ask, "of">, user: string): string;
  /** The asks of rules for a request at a provider. */
  asksOf(rules: readonly RedisRule[], request: RateLimitRequest, provider: string): readonly Ask[];
}

interface Taken {
  readonly request: RateLimitRequest;
  /** The beginning of the ids of its calls. */
  readonly id: string;
  readonly takings: readonly Taking<RedisRule>[];
  readonly provider: string | null;
  /** The rules by provider that may apply. */
  readonly byProvider: readonly RedisRule[];
}

export function isByProvider({ by }: Pick<RateRule, "by">): boolean {
  return by.includes("provider");
}

/** What a request has taken in Redis. As a class, since one is made for each request. */
export class RedisTicket implements RateTicket {
  readonly #calls: RateCalls;
  readonly #taken: Taken;
  #takings: readonly Taking<RedisRule>[];
  #provider: string | null;
  #moves = 0;
  #isSettled = false;

  constructor(calls: RateCalls, taken: Taken) {
    this.#calls = calls;
    this.#taken = taken;
    this.#takings = taken.takings;
    this.#provider = taken.provider;
  }

  get provider(): string | null {
    return this.#provider;
  }

  get states(): readonly RateLimitState[] {
    return this.#takings
      .filter(({ of }) => of.rule.isShown)
      .map((taking) => stateOf(taking, taking.before + taking.steps, this.#taken.request));
  }

  async move(provider: string): Promise<RateLimitRefusal | null> {
    if (this.#isSettled || this.#provider === null || provider === this.#provider) return null;
    const { request, id, byProvider } = this.#taken;
    const group = this.#calls.asksOf(byProvider, request, provider);
    const [left, kept] = partition(this.#takings, ({ of }) => isByProvider(of.rule));
    const [first = left[0]] = group;
    if (first === undefined) {
      this.#provider = provider;
      return null;
    }
    const tag = this.#calls.tagOf(first, request.user);
    // Where the answer is lost nobody knows what is taken where: it lapses with time.
    this.#takings = kept;
    const reply = await this.#calls.take({ tag, id: `${id}m${++this.#moves}`, groups: [group], returned: left });
    const worst = worstOf(reply.takings);
    if (worst !== null) {
      this.#takings = [...kept, ...left];
      return refusalOf(worst, reply.takings, request);
    }
    this.#takings = [...kept, ...reply.takings];
    this.#provider = provider;
    return null;
  }

  async settle(use: RateUse): Promise<void> {
    if (this.#isSettled) return;
    this.#isSettled = true;
    const { request, id } = this.#taken;
    const byTag = new Map<string, Correction[]>();
    for (const taking of this.#takings) {
      const { of, steps } = taking;
      const unused = steps - (use.wasSent ? used(of, request, use, steps) : 0);
      if (unused === 0) continue;
      const tag = this.#calls.tagOf(taking, request.user);
      byTag.set(tag, [...(byTag.get(tag) ?? []), { taking, unused }]);
    }
    // Where both are in one tag, their marks still differ.
    await Promise.all(Array.from(byTag, ([tag, corrections]) => this.#calls.correct(tag, `${id}e`, corrections)));
  }
}

/** Steps of what a request has used in the end. */
function used(of: RedisRule, request: RateLimitRequest, { tokens, outputTokens }: RateUse, taken: number): number {
  if (of.rule.metric === "requests") return taken;
  return stepsOf(of, request, unitsOf(of, request, tokens, outputTokens));
}

function partition<Item>(items: readonly Item[], test: (item: Item) => boolean): readonly [Item[], Item[]] {
  return [items.filter(test), items.filter((item) => !test(item))];
}
