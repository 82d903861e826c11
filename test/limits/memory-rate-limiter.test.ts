import { describe, expect, it } from "vitest";
import { parseConfig } from "../../src/config/load.ts";
import { createMemoryRateLimiter, type MemoryRateLimiter } from "../../src/limits/memory/memory-rate-limiter.ts";
import { createRateRules, type RateRule } from "../../src/limits/rate-rules.ts";
import type { RateLimitRequest, RateTicket } from "../../src/limits/rate-limiter.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { perSecond, rateAsk, refusalIn, ticketOf, unsent } from "../support/rates.ts";

const perUser = perSecond(1, { name: "user", by: ["user"] });
const tokens = (max: number, some: Partial<RateRule> = {}): RateRule =>
  perSecond(max, { name: "tokens", metric: "tokens", perMs: 60_000, burst: max, ...some });

async function take(limiter: MemoryRateLimiter, some: Partial<RateLimitRequest>) {
  return refusalIn(await limiter.take(rateAsk(some)));
}

const open = (...rules: readonly RateRule[]) => {
  const clock = createManualClock();
  return { clock, limiter: createMemoryRateLimiter({ rules, clock }) };
};

describe("a changed rule", () => {
  it("keeps each bucket as full as it was, and a rule that went is forgotten", async () => {
    const { clock, limiter } = open(perSecond(10), perUser);
    for (const user of ["a", "a", "b"]) expect(await take(limiter, { user })).toBeNull();
    limiter.configure([perSecond(2), { ...perUser, perMs: 4000, burst: 1 }]);
    // The bucket of "a" was empty and is; that of "b" was half full, and holds one of at most one.
    expect(await take(limiter, { user: "a" })).toEqual({ rule: "user", retryAfterMs: 4000 });
    clock.advance(2000);
    expect(await take(limiter, { user: "b" })).toBeNull();
    limiter.configure([perSecond(1000)]);
    for (let i = 0; i < 100; i++) expect(await take(limiter, { user: "a" })).toBeNull();
  });

  it("gives back the same share of what a request took before, and nothing to a rule that went", async () => {
    const { limiter } = open(tokens(100));
    const ticket = ticketOf(await limiter.take(rateAsk({ tokens: 50 })));
    limiter.configure([tokens(1000), perUser]);
    expect(await limiter.statesOf(rateAsk({ tokens: 1 }))).toMatchObject([{ remaining: 500 }, { rule: "user" }]);
    await ticket.settle(unsent);
    expect(await limiter.statesOf(rateAsk({ tokens: 1 }))).toMatchObject([{ remaining: 1000 }, { rule: "user" }]);

    const late = ticketOf(await limiter.take(rateAsk({ tokens: 50 })));
    limiter.configure([]);
    await late.settle(unsent);
    expect(await take(limiter, {})).toBeNull();
  });
});

describe("what had flowed off", () => {
  it("is put back by the same share when a rule changes", async () => {
    const { clock, limiter } = open(tokens(1000));
    const left = async () => (await limiter.statesOf(rateAsk({ tokens: 1 })))[0]?.remaining;
    const held: RateTicket[] = [];
    for (let n = 0; n < 4; n++) {
      held.push(ticketOf(await limiter.take(rateAsk({ tokens: 600 }))));
      clock.advance(36_000);
    }
    ticketOf(await limiter.take(rateAsk({ tokens: 1000 })));
    await held[0]?.settle(unsent);
    limiter.configure([tokens(100)]);
    expect(await left()).toBe(60);
    // 600 of 1000 were put back already, so 400 can be, which are 40 of 100.
    await held[1]?.settle(unsent);
    expect(await left()).toBe(100);
    ticketOf(await limiter.take(rateAsk({ tokens: 100 })));
    await held[2]?.settle(unsent);
    expect(await left()).toBe(0);
  });
});

describe("tokens", () => {
  it("are taken by the bound, and corrected to what was used, down and up", async () => {
    const { limiter } = open(tokens(1000));
    const remaining = async () => (await limiter.statesOf(rateAsk({ tokens: 1 })))[0]?.remaining;
    const use = { wasSent: true, outputTokens: 0 };
    const first = ticketOf(await limiter.take(rateAsk({ tokens: 900 })));
    expect(await take(limiter, { tokens: 200 })).toEqual({ rule: "tokens", retryAfterMs: 6000 });
    await first.settle({ ...use, tokens: 100 });
    await first.settle({ ...use, tokens: 0 });
    expect(await remaining()).toBe(900);
    const second = ticketOf(await limiter.take(rateAsk({ tokens: 100 })));
    await second.settle({ ...use, tokens: 1200 });
    expect(await remaining()).toBe(0);
    // 300 tokens below empty: they are paid off before one more is there.
    expect(await take(limiter, { tokens: 1 })).toEqual({ rule: "tokens", retryAfterMs: 18_060 });
  });

  it("used far beyond the bound lock nobody out for longer than two bursts take", async () => {
    const { clock, limiter } = open(tokens(1000));
    const ticket = ticketOf(await limiter.take(rateAsk({ tokens: 1 })));
    await ticket.settle({ wasSent: true, tokens: Number.MAX_SAFE_INTEGER, outputTokens: 0 });
    expect(await take(limiter, { tokens: 1000 })).toEqual({ rule: "tokens", retryAfterMs: 120_000 });
    clock.advance(120_000);
    expect(await take(limiter, { tokens: 1000 })).toBeNull();
  });

  it("that the client asks for beyond the burst are refused for good, and say what would fit", async () => {
    const { limiter } = open(tokens(1000));
    for (const asked of [1001, 1e9, Number.MAX_SAFE_INTEGER]) {
      const refusal = await limiter.take(rateAsk({ tokens: asked }));
      expect(refusal).toMatchObject({ retryAfterMs: 1, tooLarge: { metric: "tokens", needed: asked, most: 1000 } });
    }
  });

  it("that only the proxy's own bound asks for take the whole bucket, one request at a time", async () => {
    const { limiter } = open(tokens(1000));
    const ask = { tokens: 9000, isOwnBound: true };
    const ticket = ticketOf(await limiter.take(rateAsk(ask)));
    expect(await take(limiter, ask)).toEqual({ rule: "tokens", retryAfterMs: 60_000 });
    await ticket.settle({ wasSent: true, tokens: 10, outputTokens: 5 });
    expect(await take(limiter, ask)).toEqual({ rule: "tokens", retryAfterMs: 600 });
  });

  it("of the output are counted apart", async () => {
    const { limiter } = open(tokens(100, { name: "out", metric: "output_tokens" }));
    expect(await take(limiter, { tokens: 5000, outputTokens: 60 })).toBeNull();
    expect(await take(limiter, { tokens: 50, outputTokens: 50 })).toMatchObject({ rule: "out" });
    // Embeddings have none.
    expect(await take(limiter, { tokens: 5000, outputTokens: 0 })).toBeNull();
  });
});

describe("a rule applies to", () => {
  it("its tiers and groups", async () => {
    const once = { perMs: 1000, burst: 1 };
    const { limiter } = open(
      perSecond(1, { ...once, name: "basic", tiers: ["basic"] }),
      perSecond(1, { ...once, name: "lab", by: ["group"], groups: ["lab"] }),
    );
    expect(await take(limiter, { tier: "basic" })).toBeNull();
    expect(await take(limiter, { tier: "basic" })).toMatchObject({ rule: "basic" });
    for (const group of [null, "other", "lab"]) expect(await take(limiter, { tier: "pro", group })).toBeNull();
    expect(await take(limiter, { tier: "pro", group: "lab" })).toMatchObject({ rule: "lab" });
    expect(await take(limiter, { tier: "pro", group: "other" })).toBeNull();
  });

  it("its models, by the client's name or the one after aliases, with their weights", async () => {
    const { limiter } = open(
      perSecond(10, { burst: 10, models: ["deep-*"], weights: { "deep-pro": 5, "deep-free": 0 } }),
    );
    const names = (model: string, upstreamModel = model) => ({ model, upstreamModel });
    expect(await take(limiter, names("gpt"))).toBeNull();
    expect(await take(limiter, names("gpt", "deep-pro"))).toBeNull();
    for (let i = 0; i < 30; i++) expect(await take(limiter, names("deep-free"))).toBeNull();
    expect(await take(limiter, names("deep-pro", "other"))).toBeNull();
    expect(await take(limiter, names("deep-small"))).toMatchObject({ retryAfterMs: 100 });
    expect(await take(limiter, names("gpt"))).toBeNull();
  });

  it("each combination of what it is by, and not to requests that lack a part", async () => {
    const { limiter } = open(perSecond(1, { name: "both", by: ["key", "model"], burst: 1 }));
    const ask = (apiKey: string | null, upstreamModel: string) => take(limiter, { apiKey, upstreamModel });
    for (const key of ["k1", "k2"]) for (const model of ["a", "b"]) expect(await ask(key, model)).toBeNull();
    expect(await ask("k2", "b")).toMatchObject({ rule: "both" });
    for (let i = 0; i < 3; i++) expect(await ask(null, "a")).toBeNull();
  });
});

describe("rules by provider", () => {
  const each = perSecond(1, { name: "each", by: ["provider"], burst: 1 });

  it("are taken of the first provider with room, and refuse only where none has", async () => {
    const { limiter } = open(each);
    const ask = rateAsk({ providers: ["a", "b"] });
    expect([ticketOf(await limiter.take(ask)).provider, ticketOf(await limiter.take(ask)).provider]).toEqual([
      "a",
      "b",
    ]);
    expect(refusalIn(await limiter.take(ask))).toEqual({ rule: "each", retryAfterMs: 1000 });
    expect(ticketOf(await limiter.take(rateAsk({ providers: ["c"] }))).provider).toBe("c");
  });

  it("wait for the provider that has room first", async () => {
    const { clock, limiter } = open(each);
    await take(limiter, { providers: ["a"] });
    clock.advance(400);
    await take(limiter, { providers: ["b"] });
    expect(await take(limiter, { providers: ["b", "a"] })).toEqual({ rule: "each", retryAfterMs: 600 });
    expect(await take(limiter, { providers: ["b"] })).toEqual({ rule: "each", retryAfterMs: 1000 });
  });
});

describe("a ticket that is moved to another provider", () => {
  it("takes from all rules by provider or none, and corrects the last one", async () => {
    const byModel = perSecond(1, { name: "model", by: ["model", "provider"], perMs: 60_000, burst: 1 });
    const { limiter } = open({ ...tokens(100), by: ["provider"] }, byModel);
    const ask = (upstreamModel: string, asked: number, ...providers: readonly string[]) =>
      limiter.take(rateAsk({ upstreamModel, tokens: asked, providers }));
    const ticket = ticketOf(await ask("m", 60, "a", "b", "c"));
    ticketOf(await ask("m", 10, "b"));
    expect(await ticket.move("b")).toMatchObject({ rule: "model" });
    expect(refusalIn(await ask("n", 90, "b"))).toBeNull();
    expect(refusalIn(await ask("n", 41, "a"))).toMatchObject({ rule: "tokens" });
    expect(await ticket.move("c")).toBeNull();
    expect(refusalIn(await ask("m", 100, "a"))).toBeNull();
    await ticket.settle({ wasSent: true, tokens: 20, outputTokens: 1 });
    expect(refusalIn(await ask("n", 81, "c"))).toMatchObject({ rule: "tokens" });
    expect(refusalIn(await ask("n", 80, "c"))).toBeNull();
    expect(refusalIn(await ask("m", 1, "c"))).not.toBeNull();
  });
});

describe("trust", () => {
  it("makes rules by user slower or faster, and those of all not", async () => {
    const { limiter } = open(perSecond(1000), { ...perUser, perMs: 60_000, max: 60, burst: 10 });
    const taken = async (user: string, factor: number) => {
      let count = 0;
      while ((await take(limiter, { user, factor })) === null) count++;
      return count;
    };
    expect([await taken("a", 1), await taken("b", 0.5), await taken("c", 2)]).toEqual([10, 5, 20]);
    expect(await take(limiter, { user: "b", factor: 0.5 })).toEqual({ rule: "user", retryAfterMs: 2000 });
    expect(await take(limiter, { user: "c", factor: 2 })).toEqual({ rule: "user", retryAfterMs: 500 });
    // However little somebody is trusted, one request fits.
    expect(await taken("d", 0.001)).toBe(1);
    const [, state] = await limiter.statesOf(rateAsk({ user: "e", factor: 0.5 }));
    expect(state).toMatchObject({ max: 30, remaining: 5 });
  });
});

describe("buckets", () => {
  it("are forgotten once nothing is taken of them", async () => {
    const { clock, limiter } = open(perUser);
    for (let i = 0; i < 5000; i++) await take(limiter, { user: `u${i}` });
    const [status] = await limiter.rules();
    expect(status).toMatchObject({ name: "user", by: ["user"], buckets: 5000, evicted: 0 });
    clock.advance(2000);
    expect((await limiter.rules())[0]?.buckets).toBe(0);
  });

  it("of a million keys are kept; beyond the bound, those unused for the longest go and are counted", async () => {
    const rules = [perSecond(1, { name: "user", by: ["user"], perMs: 3_600_000, burst: 1 })];
    const limiter = createMemoryRateLimiter({ rules, clock: createManualClock() });
    const ask = (index: number) => limiter.take(rateAsk({ user: `user-${index}` }));
    for (let i = 0; i < 1_000_000; i++) if (!("settle" in (await ask(i)))) throw new Error("refused");
    for (const i of [0, 499_999, 999_999]) expect(refusalIn(await ask(i))).not.toBeNull();
    expect((await limiter.rules())[0]).toMatchObject({ buckets: 1_000_000, evicted: 0 });

    const small = createMemoryRateLimiter({ rules, clock: createManualClock(), maxBuckets: 20_000 });
    for (let i = 0; i < 50_000; i++) await small.take(rateAsk({ user: `user-${i}` }));
    const [status] = await small.rules();
    expect(status?.buckets).toBeLessThanOrEqual(20_000);
    expect(status?.evicted).toBe(50_000 - (status?.buckets ?? 0));
    expect(refusalIn(await small.take(rateAsk({ user: "user-49999" })))).not.toBeNull();
  });
});

describe("rules that are alike", () => {
  it("have buckets of their own, before and after a reload", async () => {
    const same = { name: "group_lab_requests_second", by: ["group"], groups: ["lab"], perMs: 60_000 } as const;
    const rules = [perSecond(4, { ...same, burst: 4 }), perSecond(6, { ...same, burst: 6, ofGroup: "lab" })];
    const { limiter } = open(...rules);
    for (const more of [2, 2]) {
      for (let asked = 0; asked < more; asked++) expect(await take(limiter, { group: "lab" })).toBeNull();
      limiter.configure(rules);
    }
    expect(await take(limiter, { group: "lab" })).toMatchObject({ retryAfterMs: 15_000 });
    limiter.configure(rules.slice(1));
    for (let asked = 0; asked < 2; asked++) expect(await take(limiter, { group: "lab" })).toBeNull();
    expect(await take(limiter, { group: "lab" })).toMatchObject({ retryAfterMs: 10_000 });
  });

  it("never share a bucket, even where nothing tells them apart", async () => {
    const rules = [perUser, { ...perUser, burst: 1 }];
    const { limiter } = open(...rules);
    limiter.configure(rules);
    expect((await limiter.rules()).map(({ burst }) => burst)).toEqual([2, 1]);
    expect(await take(limiter, {})).toBeNull();
    expect(await take(limiter, {})).toMatchObject({ rule: "user" });
  });

  it("count a group once that is named twice", async () => {
    const { limiter } = open(tokens(100, { groups: ["lab", "lab"] }));
    const ticket = ticketOf(await limiter.take(rateAsk({ group: "lab", tokens: 90 })));
    // Corrected twice, the rule would have counted nothing.
    await ticket.settle({ wasSent: true, tokens: 40, outputTokens: 1 });
    expect(await take(limiter, { group: "lab", tokens: 61 })).toEqual({ rule: "tokens", retryAfterMs: 600 });
    expect(await take(limiter, { group: "lab", tokens: 60 })).toBeNull();
  });
});

describe("rules of a config", () => {
  const rulesOf = (text: string) => createRateRules(parseConfig(text, "test.toml"));

  it("are those of [rate_limit] by their names, exact whatever the rate", () => {
    expect(rulesOf("")).toMatchObject([{ name: "global", by: [], max: 100, perMs: 1000, burst: 200, isShown: false }]);
    const [, perUserRule, perKey] = rulesOf("rate_limit = { per_user = 0.1, per_key = 2.5 }");
    expect(perUserRule).toMatchObject({ name: "per_user", by: ["user"], max: 1, perMs: 10_000, burst: 1 });
    expect(perKey).toMatchObject({ name: "per_key", by: ["key"], max: 25, perMs: 10_000, burst: 5 });
  });

  it("are those of [[limits]], named and with a burst by default", () => {
    const [, first, second] = rulesOf(`
[[limits]]
by = ["user", "model"]
metric = "tokens"
per = "minute"
max = 1000
[[limits]]
by = "global"
per = "second"
max = 5
`);
    expect(first).toMatchObject({ name: "model_user_tokens_minute", by: ["model", "user"], burst: 1000 });
    expect(second).toMatchObject({ name: "global_requests_second", by: [], metric: "requests", burst: 10 });
  });

  it("are those of groups, each with its own bucket and name", () => {
    const rate = { metric: "requests", per: "second", max: 1, burst: 1, weight: {} } as const;
    const rules = createRateRules(parseConfig("", "test.toml"), [
      { name: "lab", rates: [rate, { ...rate, models: ["a"] }] },
      { name: "ops", rates: [rate] },
    ]);
    expect(rules.slice(1).map(({ name, by, groups }) => [name, by, groups])).toEqual([
      ["group_lab_requests_second", ["group"], ["lab"]],
      ["group_lab_requests_second_2", ["group"], ["lab"]],
      ["group_ops_requests_second", ["group"], ["ops"]],
    ]);
  });
});
