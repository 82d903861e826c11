import { expect, it } from "vitest";
import { createPricingPolicy, unpricedModels } from "../../src/gateway/request-cost.ts";
import { parseConfig } from "../../src/config/load.ts";

const limited = `[quota.tiers.basic]\nlimits = [{ metric = "cost", per = "month", max = 5 }]\n`;
const unlimited = `[quota.tiers.basic]\nrequests = 500\n`;
const provider = `[[providers]]
name = "main"
kind = "deepseek"
models = ["deepseek-*", "special", "renamed"]
model_map = { renamed = "deepseek-flash" }
`;
const price = (models: string, rest = "") =>
  `[[models.prices]]\nmodels = ["${models}"]\ncurrency = "CNY"\ncache_hit = 1\ncache_miss = 1\noutput = 1\n${rest}\n`;

const unpriced = (text: string, at = "2026-11-23T00:00:00Z") => {
  const config = parseConfig(text, "config.toml");
  return unpricedModels(config, createPricingPolicy(config).pricing, Date.parse(at));
};

it("names the models without a price where cost is limited", () => {
  expect(unpriced(limited + provider)).toEqual(["main/deepseek-*", "main/special", "main/deepseek-flash"]);
  expect(unpriced(limited + provider + price("deepseek-*"))).toEqual(["main/special"]);
  expect(unpriced(limited + provider + price("special"))).toEqual(["main/deepseek-flash"]);
  expect(unpriced(limited + provider + price("deepseek-flash") + price("special"))).toEqual([]);
});

it("looks at the prices in force", () => {
  const old = price("*", "valid_until = 2026-01-01T00:00:00Z");
  expect(unpriced(limited + provider + old, "2025-12-31T00:00:00Z")).toEqual([]);
  expect(unpriced(limited + provider + old)).toEqual(["main/special", "main/deepseek-flash"]);
});

it("says nothing where no cost is limited", () => {
  expect(unpriced(unlimited + provider)).toEqual([]);
});
