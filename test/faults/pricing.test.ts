import { readFileSync } from "node:fs";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createPricingPolicy } from "../../src/gateway/request-cost.ts";
import { parseConfig } from "../../src/config/load.ts";
import { createKnownModels } from "../../src/providers/model-list.ts";
import { createRouter } from "../../src/providers/router.ts";
import { jsonOf, type JsonAnswer } from "../support/accounts.ts";
import { problemsOf } from "../config/support.ts";
import { startCountingUpstream, type CountingUpstream } from "../support/counting-upstream.ts";
import { testProvider } from "../support/provider.ts";
import { quotaOf } from "../support/quota.ts";
import { bearer, post, startProxy, type RunningProxy } from "../support/start-proxy.ts";

const closers: (() => Promise<void>)[] = [];
const close = (end: () => Promise<void>): void => void closers.push(end);
const password = "correct horse battery";
const user = (name: string, tier: string, rest = ""): string =>
  `username = "${name}"\npassword = "${password}"\nquota_tier = "${tier}"\n${rest}\n`;
const row = (models: string, rest = "", currency = "CNY", price = 1): string =>
  `[[models.prices]]\nmodels = [${models}]\ncurrency = "${currency}"\ncache_hit = ${price}\ncache_miss = ${price}\noutput = ${price}\n${rest}\n`;
const cost = (currency: string, max = 2): string =>
  `{ metric = "cost", per = "month", max = ${max}, currency = "${currency}" }`;

let first: CountingUpstream;
let second: CountingUpstream;
let proxy: RunningProxy;

/** Two providers that serve everything; the second is asked where the first fails. */
beforeAll(async () => {
  [first, second] = [await startCountingUpstream(close), await startCountingUpstream(close)];
  const provider = (name: string, url: string, priority: number, rest = ""): string =>
    `[[providers]]\nname = "${name}"\nkind = "openai"\nbase_url = "${url}"\napi_key_env = "DEEPSEEK_API_KEY"\nmodels = ["*"]\npriority = ${priority}\n${rest}\n`;
  proxy = await startProxy({
    env: { DEEPSEEK_API_KEY: "sk-test" },
    users: {
      // With limits of cost in yuan, in two currencies, in one of which nothing is left, and with none.
      alice: user("alice", "yuan"),
      bob: user("bob", "open", `limits = [${cost("CNY")}]`),
      both: user("both", "open", `limits = [${cost("CNY")}, ${cost("USD")}]`),
      poor: user("poor", "open", `limits = [${cost("CNY")}, ${cost("USD", 0)}]`),
      carol: user("carol", "open"),
    },
    config: `
[concurrency]
max_parallel = 20
[retry]
attempts = 2
base_ms = 1
[breaker]
failures = 1000
[quota.tiers]
yuan = { limits = [{ metric = "cost", per = "month", max = 2 }] }
open = { requests = 1000 }
[models]
aliases = { nick = "copper-1", "nick-*" = "tin-5", "cu-*" = "copper-1" }
${row('"tin-*", "nick", "cu-1", "mapped", "free-tin"')}
${row('"over"', "valid_until = 2020-01-01T00:00:00Z")}
${row('"to-come"', "valid_from = 2999-01-01T00:00:00Z")}
${row('"elsewhere"', 'provider = "second"')}
${row('"euro"', "", "EUR")}
${row('"gift"', "", "EUR", 0)}
${row('"mixed"', 'provider = "first"')}
${row('"mixed"', 'provider = "second"', "USD")}
${row('"half"', 'provider = "first"')}
${provider("first", first.url, 0, 'model_map = { mapped = "their-own", "named-*" = "tin-5" }')}
${provider("second", second.url, 1)}
`,
  });
  closers.push(() => proxy.dispose());
});
afterAll(async () => {
  for (const end of closers.splice(0).reverse()) await end();
});
beforeEach(() => {
  for (const upstream of [first, second]) {
    upstream.asked.length = 0;
    upstream.status = 200;
  }
});

const tokens = new Map<string, Promise<string>>();
function tokenOf(name: string): Promise<string> {
  const token = tokens.get(name) ?? proxy.login(name, password);
  tokens.set(name, token);
  return token;
}

async function ask(as: string, model: string, rest: object = {}): Promise<JsonAnswer<object>> {
  const token = as.startsWith("dsp_") ? as : await tokenOf(as);
  const body = { model, max_tokens: 10, messages: [{ role: "user", content: "hi" }], ...rest };
  return jsonOf(post(`${proxy.url}/v1/chat/completions`, body, bearer(token)));
}

/** Nano-units used of each limit of cost; fails where something is still held. */
async function spent(name: string): Promise<number[]> {
  const limits = await quotaOf(proxy, await tokenOf(name));
  expect(limits.filter(({ reserved }) => reserved !== 0)).toEqual([]);
  return limits.filter(({ metric }) => metric === "cost").map(({ used }) => Math.round(used * 1e9));
}

async function newKey(name: string, terms: object): Promise<string> {
  const token = await tokenOf(name);
  const made = await jsonOf<{ key: string }>(post(`${proxy.url}/auth/keys`, { name: "x", ...terms }, bearer(token)));
  return made.body.key;
}

const notPriced = { status: 403, body: { error: { code: "model_not_priced", param: "model" } } };

describe("M1: a model without a price", () => {
  it.each([
    ["without any row", "copper-1"],
    ["by an alias that has a row", "nick"],
    ["by a glob alias", "cu-9"],
    ["by a name whose own name at the provider has none", "mapped"],
    ["after its price", "over"],
    ["before its price", "to-come"],
    ["in another currency (M2)", "euro"],
  ])("is refused to users with a limit of cost: %s", async (_how, model) => {
    second.status = 500;
    const before = await spent("alice");
    // The second provider serves "mapped" by that very name, which has a price.
    if (model === "mapped") expect((await ask("alice", model)).status).toBe(502);
    else for (const name of ["alice", "bob", "both"]) expect(await ask(name, model)).toMatchObject(notPriced);
    expect([first.asked, new Set(second.asked)]).toEqual([[], new Set(model === "mapped" ? ["mapped"] : [])]);
    expect(await spent("alice")).toEqual(before);
    second.status = 200;
    expect((await ask("carol", model)).status).toBe(200);
    expect(first.asked).toHaveLength(1);
  });

  it.each(["tin-5", "nick-9", "named-5", "cu-1"])("%s has one, by the name that is sent", async (model) => {
    const priced = model !== "cu-1";
    const [before = 0] = await spent("alice");
    expect((await ask("alice", model)).status).toBe(priced ? 200 : 403);
    expect(first.asked).toEqual(priced ? ["tin-5"] : []);
    expect(await spent("alice")).toEqual([before + (priced ? 15_000 : 0)]);
  });

  it("is free only where its price is listed as 0, in whatever currency", async () => {
    const before = await spent("alice");
    expect((await ask("alice", "gift")).status).toBe(200);
    expect(await spent("alice")).toEqual(before);
  });

  it("is not asked of a provider without a price for it, first or after another has failed", async () => {
    expect((await ask("alice", "elsewhere")).status).toBe(200);
    expect([first.asked, second.asked]).toEqual([[], ["elsewhere"]]);
    first.status = 500;
    expect((await ask("alice", "half")).status).toBe(502);
    expect([new Set(first.asked), second.asked]).toEqual([new Set(["half"]), ["elsewhere"]]);
    expect((await ask("carol", "half")).status).toBe(200);
    expect(second.asked).toEqual(["elsewhere", "half"]);
  });

  it("is refused through an API key with a limit of cost, and to nobody else for it", async () => {
    const yuan = await newKey("carol", { limits: [{ metric: "cost", per: "day", max: 1 }] });
    expect(await ask(yuan, "copper-1")).toMatchObject(notPriced);
    expect((await ask(yuan, "tin-5")).status).toBe(200);
    expect((await ask(await newKey("carol", {}), "copper-1")).status).toBe(200);
    // M2: what the key counts is in another currency than the price, though the user's is the same.
    const euro = await newKey("alice", { limits: [{ metric: "cost", per: "day", max: 1, currency: "EUR" }] });
    expect(await ask(euro, "tin-5")).toMatchObject(notPriced);
  });

  it("has Anthropic's shape of refusal there", async () => {
    const body = { model: "copper-1", max_tokens: 1, messages: [{ role: "user", content: "hi" }] };
    const answer = await jsonOf(post(`${proxy.url}/anthropic/v1/messages`, body, bearer(await tokenOf("alice"))));
    expect(answer.status).toBe(404);
    expect(answer.body).toMatchObject({ type: "error" });
  });
});

describe("M1: the shipped config", () => {
  const { models, quota, providers } = parseConfig(
    readFileSync(new URL("../../config.toml", import.meta.url), "utf8"),
    "config.toml",
  );
  const shipped = providers.map((provider) =>
    testProvider(provider.name, { models: provider.models, modelMap: provider.model_map }),
  );
  const knownModels = createKnownModels({ configured: [], listed: () => [], mayServe: () => false });
  const router = createRouter({ providers: shipped, aliases: models.aliases, knownModels, random: () => 0 });
  const { pricing } = createPricingPolicy({ models, quota });
  // Monday, 13:00 in Beijing: no peak.
  const outputPrice = (model: string): number => {
    const { upstreamModel, candidates } = router.resolve(model, "messages");
    const [provider] = candidates;
    return pricing.priceAt("deepseek", provider?.ownName(upstreamModel) ?? "", Date.parse("2026-11-23T05:00:00Z"))
      .output;
  };

  it.each([
    ["deepseek-flash", 4],
    ["deepseek-v4-pro", 13.5],
    ["deepseek-v4-flash", 4],
    ["deepseek-v4-flash-vision-exp", 4],
    ["deepseek-chat", 4],
    ["deepseek-reasoner", 13.5],
    ["claude-opus-4-8[1m]", 13.5],
    ["claude-sonnet-5", 4],
    ["claude", 4],
    ["deepseek-v5", 0],
  ])("prices %s at %s yuan, as DeepSeek bills it; 0: not at all", (model, yuan) => {
    expect(outputPrice(model)).toBe(yuan * 1e9);
  });
});

describe("M2: every cost lands in a limit", () => {
  it("in the currency of the provider that answers, which is held before it is asked", async () => {
    first.status = 500;
    expect((await ask("both", "mixed")).status).toBe(200);
    expect([first.asked, second.asked]).toEqual([["mixed"], ["mixed"]]);
    expect(await spent("both")).toEqual([0, 15_000]);
  });

  it("or the provider isn't asked, where nothing is left in its currency or no limit is in it", async () => {
    first.status = 500;
    for (const name of ["poor", "alice"]) expect((await ask(name, "mixed")).status).toBe(502);
    expect(second.asked).toEqual([]);
    expect(await spent("poor")).toEqual([0, 0]);
    first.status = 200;
    expect((await ask("poor", "mixed")).status).toBe(200);
  });

  it("and a tier's limit in a currency without prices is refused at the start, with its row", () => {
    const tier = (limit: string) =>
      `[quota.tiers.team]\nlimits = [{ metric = "cost", per = "day", max = 1${limit} }]\n`;
    const problem =
      "expected a limit in a currency of models.prices, which are in EUR (models.prices.0), not in CNY, got a table";
    expect(problemsOf(tier("") + row('"tin"', "", "EUR"))).toEqual([`quota.tiers.team.limits.0: ${problem}`]);
    expect(problemsOf(tier(', currency = "EUR"') + row('"tin"', "", "EUR"))).toEqual([]);
    expect(problemsOf(tier(""))).toEqual([]);
  });
});

describe("M9: what is billed beside tokens", () => {
  const described = { type: "function", function: { name: "f", parameters: {} } };

  it.each([
    ["service_tier", "priority"],
    ["service_tier", "flex"],
    ["service_tier", ["default"]],
    ["priority", 5],
    ["speed", "fast"],
    ["web_search_options", {}],
    ["search_parameters", { mode: "auto" }],
    ["enable_search", true],
    ["plugins", [{ id: "web" }]],
    ["modalities", ["text", "audio"]],
    ["models", ["copper-1"]],
    ["tools", [described, { type: "web_search", web_search: { enable: true } }]],
    ["tools", [{ type: "web_search_20250305", name: "web_search", max_uses: 5 }]],
    ["tools", [{ type: "code_execution_20250825", name: "code_execution" }]],
    ["tools", [{ type: "builtin_function", function: { name: "$web_search" } }]],
    ["tools", [{ type: "function", function: { name: "$web_search" } }]],
    ["tools", [{ google_search: {} }]],
    ["tools", [{ name: "web_search", TYPE: "web_search_20250305" }]],
    ["tools", { type: "web_search" }],
  ])("is refused to users with a limit of cost: %s %j", async (param, value) => {
    const answer = await ask("alice", "tin-5", { [param]: value });
    expect(answer).toMatchObject({ status: 403, body: { error: { code: "extra_not_priced", param } } });
    expect(first.asked).toEqual([]);
  });

  it.each([
    { service_tier: "auto", tools: [described] },
    { service_tier: "default", priority: 0, enable_search: false, search_parameters: { mode: "off" } },
    { service_tier: null, modalities: ["text"], models: [], plugins: [] },
    {
      tools: [
        { name: "mine", input_schema: {} },
        { type: "custom", custom: { name: "c" } },
      ],
    },
    {
      tools: [
        { type: "bash_20250124", name: "bash" },
        { type: "custom", name: "d", input_schema: {} },
      ],
    },
  ])("and what costs nothing extra is not: %j", async (rest) => {
    expect((await ask("alice", "tin-5", rest)).status).toBe(200);
  });

  it("is not told from its name in capitals: that is refused to everybody", async () => {
    const refused = { status: 400, body: { error: { param: "PRIORITY" } } };
    expect(await ask("carol", "tin-5", { PRIORITY: 1 })).toMatchObject(refused);
  });

  it("is nobody else's concern", async () => {
    expect((await ask("carol", "tin-5", { service_tier: "priority" })).status).toBe(200);
  });
});
