import { describe, expect, it } from "vitest";
import { at, price, pricingOf } from "./pricing-support.ts";

const now = at("2026-11-23T00:00:00Z");

describe("the price of a model", () => {
  it("is in whole nano-units per million tokens, with a text that says what it is", () => {
    const pricing = pricingOf(`
      [[models.prices]]
      models = ["deepseek-flash"]
      currency = "USD"
      cache_hit = 0.003
      cache_miss = 0.15
      output = 0.6
      reasoning = 0.7
      valid_from = 2026-09-09T16:00:00Z
    `);
    expect(pricing.priceAt("deepseek", "deepseek-flash", now)).toEqual({
      id: "deepseek-flash@2026-09-09T16:00:00Z 0.003/0.15/0.6/0.7",
      currency: "USD",
      cacheHit: 3_000_000,
      cacheMiss: 150_000_000,
      output: 600_000_000,
      reasoning: 700_000_000,
    });
  });

  it("for reasoning is that for output where none is given", () => {
    expect(pricingOf(price("*", "0.3")).priceAt("a", "b", now)).toMatchObject({ reasoning: 300_000_000 });
  });

  it("is nothing, in the currency of the quotas, where none is configured", () => {
    const pricing = pricingOf(`[quota]\ncurrency = "EUR"\n${price("deepseek-*", "4")}`);
    expect(pricing.priceAt("openai", "gpt-5", now)).toEqual({
      id: "",
      currency: "EUR",
      cacheHit: 0,
      cacheMiss: 0,
      output: 0,
      reasoning: 0,
    });
  });

  it("cannot be changed, and is the same object each time", () => {
    const pricing = pricingOf(price("*", "4"));
    const first = pricing.priceAt("a", "b", now);
    expect(Object.isFrozen(first)).toBe(true);
    expect(pricing.priceAt("a", "b", now + 1)).toBe(first);
    expect(pricing.priceAt("a", "other", now)).toBe(first);
    expect(Object.isFrozen(pricingOf("").priceAt("a", "b", now))).toBe(true);
  });

  it("keeps currencies apart", () => {
    const pricing = pricingOf(price("a", "1") + price("b", "1").replace("CNY", "USD"));
    expect([pricing.priceAt("p", "a", now).currency, pricing.priceAt("p", "b", now).currency]).toEqual(["CNY", "USD"]);
  });
});

describe("of several prices", () => {
  const providers = ["one", "two"].map((name) => `[[providers]]\nname = "${name}"\nkind = "openai"\nmodels = ["*"]\n`);
  const pricing = pricingOf(
    providers.join("") +
      price("*", "1") +
      price("deepseek-*", "2") +
      price("deepseek-flash* *-flash-max", "3") +
      price("deepseek-flash", "4") +
      price("*", "5", 'provider = "two"') +
      price("glm-4.6* glm-*.6x", "6"),
  );
  const output = (provider: string, model: string) => pricing.priceAt(provider, model, now).output / 1e9;

  it("the one that says the most about the name wins", () => {
    expect(output("one", "gpt")).toBe(1);
    expect(output("one", "deepseek-chat")).toBe(2);
    expect(output("one", "deepseek-flash-mini")).toBe(3);
    expect(output("one", "deepseek-flash")).toBe(4);
  });

  it("one for the provider wins over all others", () => {
    expect(output("two", "deepseek-flash")).toBe(5);
    expect(pricing.priceAt("two", "deepseek-flash", now).id).toBe("two/*@always 0/0/5/5");
  });

  it("the first in the config wins where they say as much", () => {
    expect(pricing.priceAt("one", "glm-4.6x", now).id).toBe("glm-4.6*@always 0/0/6/6");
  });
});

describe("the dates of a price", () => {
  const dated =
    price("flash", "1", "valid_until = 2026-03-01") +
    price("flash", "2", "valid_from = 2026-03-01\nvalid_until = 2026-09-10T00:00:00+08:00") +
    price("flash", "3", "valid_from = 2026-09-10T08:00:00\nvalid_until = 2026-10-01") +
    price("fla*", "9");
  const output = (iso: string) => pricingOf(dated).priceAt("p", "flash", at(iso)).output / 1e9;

  it("are exact to the millisecond, with the end outside", () => {
    expect(output("1970-01-01T00:00:00Z")).toBe(1);
    expect(output("2026-02-28T15:59:59.999Z")).toBe(1);
    expect(output("2026-02-28T16:00:00.000Z")).toBe(2);
    expect(output("2026-09-09T15:59:59.999Z")).toBe(2);
    expect(output("2026-09-10T00:00:00.000Z")).toBe(3);
    expect(output("2026-09-30T15:59:59.999Z")).toBe(3);
  });

  it("leave the place to the next that matches where none is in force", () => {
    expect(output("2026-09-09T16:00:00.000Z")).toBe(9);
    expect(output("2026-09-09T23:59:59.999Z")).toBe(9);
    expect(output("2026-09-30T16:00:00.000Z")).toBe(9);
  });

  it("may be asked for in any order: nothing is remembered that depends on the time", () => {
    const pricing = pricingOf(dated);
    const times = ["2026-12-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-05-01T00:00:00Z", "2026-01-01T00:00:00Z"];
    expect(times.map((iso) => pricing.priceAt("p", "flash", at(iso)).output / 1e9)).toEqual([9, 1, 2, 1]);
  });

  it("a change of prices moves no price that was looked up before", () => {
    const before = pricingOf(price("flash", "4")).priceAt("p", "flash", now);
    const copy = { ...before };
    const after = pricingOf(price("flash", "8")).priceAt("p", "flash", now);
    expect(after.output).toBe(8e9);
    expect(before).toEqual(copy);
    expect(before.id).not.toBe(after.id);
  });
});

describe("the text that names a price", () => {
  it("can stand in a record as it is, whatever the config says", () => {
    const pricing = pricingOf(price("accounts/x:模型@1*", "0.000000001", "valid_from = 2026-01-01T00:00:00.5Z"));
    const { id } = pricing.priceAt("p", "accounts/x:模型@1-b", now);
    expect(id).toBe("accounts/x:模型@1*@2026-01-01T00:00:00.500Z 0/0/0.000000001/0.000000001");
    expect(JSON.stringify(id)).toBe(`"${id}"`);
  });
});

describe("what a request counts for", () => {
  const pricing = pricingOf('[models]\nweights = { "deepseek-*" = 2, "deepseek-v4-pro" = 5, "*-pro" = 3 }');
  const weightOf = (model: string) => pricing.weightOf(model);

  it("is the weight of the glob that says the most, and 1 for all others", () => {
    expect(["deepseek-v4-pro", "deepseek-flash", "glm-pro", "gpt", "deepseek-v4-pro"].map(weightOf)).toEqual([
      5, 2, 3, 1, 5,
    ]);
  });

  it("is found for more names than are remembered", () => {
    for (let i = 0; i < 3000; i++) expect(weightOf(`deepseek-${i}`)).toBe(2);
    expect(weightOf("deepseek-0")).toBe(2);
  });
});
