import { fc } from "../support/fast-check.ts";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseConfig } from "../../src/config/load.ts";
import { globMatcher, maxNameLength } from "../../src/lib/globs.ts";
import { createPricing } from "../../src/quota/pricing/pricing.ts";
import { createKnownModels } from "../../src/providers/model-list.ts";
import { createRouter } from "../../src/providers/router.ts";
import { ask, jsonOf, type JsonAnswer } from "../support/accounts.ts";
import { bearer, post, startProxy, type RunningProxy } from "../support/start-proxy.ts";

/** A backtracking matcher needs more steps for these than fit in a lifetime. */
const costly: readonly (readonly [glob: string, name: string])[] = [
  ["*b*b*b*b*b*c", "b".repeat(maxNameLength)],
  ["b*b*b*b*b*b*b*b*b*c", "b".repeat(maxNameLength)],
  ["*ab*ab*ab*ab*ab*ab*x", "ab".repeat(maxNameLength / 2)],
  ["*a*aa*aaa*aaaa*aaaaa*aaaaaa*b", "a".repeat(maxNameLength)],
  ["**********d", "a".repeat(maxNameLength)],
  ["*\n*\n*\n*\n*\n*x", "\n".repeat(maxNameLength)],
];

/** The same by a table of all prefixes: slow, plain and surely right. */
function matchesByTable(glob: string, name: string): boolean {
  let row = Array.from({ length: name.length + 1 }, (_, length) => length === 0);
  for (const letter of glob) {
    const next = Array.from({ length: name.length + 1 }, () => false);
    for (let length = 0; length <= name.length; length++) {
      next[length] =
        letter === "*"
          ? row[length] === true || next[length - 1] === true
          : row[length - 1] === true && name[length - 1] === letter;
    }
    row = next;
  }
  return row[name.length] === true;
}

describe("I1: globs", () => {
  it("match what they matched before", () => {
    const glob = fc.string({ unit: fc.constantFrom("*", "a", "b"), maxLength: 12 });
    const name = fc.string({ unit: fc.constantFrom("a", "b"), maxLength: 16 });
    fc.assert(
      fc.property(glob, name, (one, other) => {
        expect(globMatcher(one)(other)).toBe(matchesByTable(one, other));
      }),
      { numRuns: 2000 },
    );
  });

  it.each(costly)("%s cannot be made to search again and again", (glob, name) => {
    expect(globMatcher(glob)(name)).toBe(false);
  });

  it("match no name that is too long for a model, however they are made", () => {
    const name = "a".repeat(50_000_000);
    for (const glob of ["*", "a*", "*a*a*", name]) expect(globMatcher(glob)(name)).toBe(false);
  });

  it("of prices, weights and providers cost no more", () => {
    const quoted = costly.map(([glob]) => JSON.stringify(glob)).filter((glob) => !glob.includes("\\"));
    const { models, providers } = parseConfig(
      `[[providers]]\nname = "p"\nkind = "openai"\nbase_url = "http://localhost"\nmodels = [${quoted.join()}]\n` +
        `[[models.prices]]\nmodels = [${quoted.join()}]\ncurrency = "CNY"\ncache_hit = 1\ncache_miss = 1\noutput = 1\n` +
        `[models.weights]\n${quoted.map((glob) => `${glob} = 2`).join("\n")}\n`,
      "test.toml",
    );
    const pricing = createPricing({ models, timezone: "UTC", currency: "CNY" });
    const provider = { name: "p", models: providers[0]?.models ?? [], priority: 0, weight: 1, endpoints: {} };
    const knownModels = createKnownModels({ configured: [], listed: () => [], mayServe: () => false });
    const router = createRouter({ providers: [provider as never], aliases: {}, knownModels, random: () => 0 });
    for (const [, name] of costly) {
      expect(pricing.weightOf(name)).toBe(1);
      expect(pricing.priceAt("p", name, 0)).toMatchObject({ id: "" });
      expect(() => router.resolve(name, "chat")).toThrow("No provider serves");
    }
  });

  it.each(["*".repeat(11), "a*".repeat(11), "a".repeat(201), ""])(
    "are refused in the config where too long: %s",
    (glob) => {
      const text = `[[providers]]\nname = "p"\nkind = "deepseek"\nmodels = ["${glob}"]\n`;
      expect(() => parseConfig(text, "test.toml")).toThrow("providers.0.models.0");
    },
  );
});

describe("I1: globs of API keys", () => {
  let proxy: RunningProxy;
  let token: string;

  beforeAll(async () => {
    proxy = await startProxy();
    token = await proxy.login();
  });

  afterAll(() => proxy.dispose());

  const create = (models: readonly string[]): Promise<JsonAnswer<{ key: string }>> =>
    jsonOf(post(`${proxy.url}/auth/keys`, { name: "x", models }, bearer(token)));

  it("let nobody hold up the others", async () => {
    const { key } = (await create(costly.map(([glob]) => glob))).body;
    for (const [, model] of costly) {
      const body = { model, messages: [{ role: "user", content: "hi" }] };
      for (const path of ["/v1/chat/completions", "/v1/embeddings", "/anthropic/v1/messages"]) {
        const answer = await jsonOf(post(`${proxy.url}${path}`, body, bearer(key)));
        expect(answer).toMatchObject({ status: 403, body: { error: { param: "model" } } });
      }
    }
    expect(await ask(proxy, "GET /v1/models", key)).toMatchObject({ status: 200 });
  });

  it("don't look at a name that is too long for a model", async () => {
    const { key } = (await create(["*"])).body;
    const body = { model: "b".repeat(1_000_000), messages: [{ role: "user", content: "hi" }] };
    const answer = await jsonOf(post(`${proxy.url}/v1/chat/completions`, body, bearer(key)));
    expect(answer).toMatchObject({ status: 400, body: { error: { code: "invalid_request", param: "model" } } });
  });

  it.each([["*".repeat(11)], ["a*".repeat(100)], ["a".repeat(201)], [""]])("are bounded: %s", async (glob) => {
    expect(await create(["ok", glob])).toMatchObject({
      status: 400,
      body: { error: { code: "invalid_request", param: "models.1" } },
    });
  });
});
