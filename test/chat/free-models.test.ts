import { expect, it } from "vitest";
import { freeModels } from "../../src/chat/free-models.ts";
import { createTariff } from "../../src/chat/tariff.ts";
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

const free = (text: string, at = "2026-11-23T00:00:00Z") => {
  const config = parseConfig(text, "config.toml");
  return freeModels(config, createTariff(config).pricing, Date.parse(at));
};

it("names the models that cost nothing where cost is limited", () => {
  expect(free(limited + provider)).toEqual(["main/deepseek-*", "main/special", "main/deepseek-flash"]);
  expect(free(limited + provider + price("deepseek-*"))).toEqual(["main/special"]);
  expect(free(limited + provider + price("deepseek-flash") + price("special"))).toEqual(["main/deepseek-*"]);
  expect(free(limited + provider + price("*"))).toEqual([]);
});

it("looks at the prices in force", () => {
  const old = price("*", "valid_until = 2026-01-01T00:00:00Z");
  expect(free(limited + provider + old, "2025-12-31T00:00:00Z")).toEqual([]);
  expect(free(limited + provider + old)).toHaveLength(3);
});

it("says nothing where no cost is limited", () => {
  expect(free(unlimited + provider)).toEqual([]);
});
