import { describe, expect, it, onTestFinished } from "vitest";
import { systemClock } from "../../src/lib/clock.ts";
import { createMemoryRateLimiter } from "../../src/limits/memory/memory-rate-limiter.ts";
import { jsonOf, type JsonAnswer } from "../support/accounts.ts";
import { startCountingUpstream } from "../support/counting-upstream.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { perSecond, rateAsk, refusalIn, ticketOf, unsent } from "../support/rates.ts";
import { bearer, post, startProxy } from "../support/start-proxy.ts";

const password = "correct horse battery";

/** A proxy whose rate is counted by a clock that stands still: a burst of 10, and nothing comes back before `refill`. */
async function start(config = "") {
  const upstream = await startCountingUpstream();
  let now = 0;
  const user = (name: string, rest: string): string => `username = "${name}"\npassword = "${password}"\n${rest}\n`;
  const limit = '{ metric = "cost", per = "day", max = 1 }';
  const proxy = await startProxy({
    upstreamUrl: upstream.url,
    clock: { now: systemClock.now, monotonic: () => now },
    users: {
      payer: user("payer", 'quota_tier = "open"'),
      broke: user("broke", 'quota_tier = "none"'),
      limited: user("limited", `quota_tier = "open"\nlimits = [${limit}]`),
    },
    config: `
[concurrency]
max_parallel = 100
max_wait_ms = 0
[quota.tiers]
open = { requests = 1000 }
none = { requests = 0 }
[rate_limit]
requests_per_second = 5
${config}`,
  });
  onTestFinished(() => proxy.dispose());
  const ask = (token: string, model = "m", rest: object = {}): Promise<JsonAnswer> =>
    jsonOf(
      post(
        `${proxy.url}/v1/chat/completions`,
        { model, messages: [{ role: "user", content: "hi" }], ...rest },
        bearer(token),
      ),
    );
  const many = async (count: number, asking: () => Promise<JsonAnswer>): Promise<(string | number)[]> => {
    const answers = await Promise.all(Array.from({ length: count }, asking));
    return [...new Set(answers.map(({ status, body }) => body.error?.code ?? status))];
  };
  const refill = (): void => void (now += 10_000);
  return { upstream, proxy, ask, many, refill };
}

describe("P7: what is refused takes nothing from the rate that all share", () => {
  it("for want of quota or of a price, as misspelled or invalid, or because nobody can be asked", async () => {
    const { upstream, proxy, ask, many, refill } = await start();
    const payer = await proxy.login("payer", password);
    const [broke, limited] = [await proxy.login("broke", password), await proxy.login("limited", password)];
    const refusals = [
      ["quota_exceeded", () => ask(broke)],
      ["model_not_priced", () => ask(limited)],
      ["model_not_found", () => ask(payer, "Deepseek-Flash")],
      ["invalid_request", () => ask(payer, "m", { n: 0 })],
    ] as const;
    for (const [code, refused] of refusals) {
      refill();
      // Behind a network one who has just been admitted is asked for all at once, and gives back what is not needed.
      expect(await many(1, refused)).toEqual([code]);
      const loop = many(30, refused);
      expect(await many(10, () => ask(payer))).toEqual([200]);
      expect(await loop).toEqual([code]);
      expect(await many(1, () => ask(payer))).toEqual(["rate_limited"]);
    }
    expect(upstream.asked).toHaveLength(40);

    refill();
    proxy.services.providerAdmin.drain("upstream");
    // One after another: until it is given back, what a request has taken is missing to the others.
    for (let asked = 0; asked < 30; asked++) {
      expect((await ask(payer)).body.error).toMatchObject({ code: "upstream_unavailable" });
    }
    proxy.services.providerAdmin.restore("upstream");
    expect(await many(10, () => ask(payer))).toEqual([200]);
  });

  it("by the rate of one user, who can't take it all", async () => {
    const { proxy, ask, many } = await start("per_user = 2");
    const [busy, payer] = [await proxy.login("limited", password), await proxy.login("payer", password)];
    await proxy.services.users.update("limited", { limits: [] });
    const answers = await Promise.all(Array.from({ length: 40 }, () => ask(busy)));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(4);
    const refused = answers.find(({ status }) => status === 429);
    expect(refused?.body.error).toMatchObject({ code: "rate_limited", details: { rule: "per_user" } });
    expect(await many(4, () => ask(payer))).toEqual([200]);
    const metrics = await (await fetch(`${proxy.url}/metrics`)).text();
    expect(metrics).toContain('rate_limit_rejections_total{rule="per_user"} 36');
  });

  it("by the rate of one API key, beside which its user and others go on", async () => {
    const { proxy, ask, many } = await start("per_key = 1");
    const payer = await proxy.login("payer", password);
    const newKey = async (): Promise<string> =>
      (await jsonOf<{ key: string }>(post(`${proxy.url}/auth/keys`, { name: "x" }, bearer(payer)))).body.key;
    const [one, other] = [await newKey(), await newKey()];
    expect(await many(2, () => ask(one))).toEqual([200]);
    const refused = await ask(one);
    expect(refused.body.error).toMatchObject({ code: "rate_limited", details: { rule: "per_key" } });
    expect(await many(2, () => ask(other))).toEqual([200]);
    expect(await many(6, () => ask(payer))).toEqual([200]);
  });
});

it("P7: what is given back to the limiter can be taken again, once", async () => {
  const rules = [perSecond(1), perSecond(1, { name: "none", perMs: 1e6, by: ["group"] })];
  const limiter = createMemoryRateLimiter({ rules, clock: createManualClock() });
  const ticket = ticketOf(await limiter.take(rateAsk()));
  expect(refusalIn(await limiter.take(rateAsk()))).toBeNull();
  await ticket.settle(unsent);
  await ticket.settle(unsent);
  expect(refusalIn(await limiter.take(rateAsk()))).toBeNull();
  expect(refusalIn(await limiter.take(rateAsk()))).toMatchObject({ rule: "global" });
});
