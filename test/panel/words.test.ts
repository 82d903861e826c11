import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { codeStates } from "../../src/admin/code-batch.ts";
import { accountStates } from "../../src/identity/account-state.ts";
import { en } from "../../web/src/words/en.ts";
import { zh } from "../../web/src/words/zh.ts";

const web = join(import.meta.dirname, "..", "..", "web", "src");
const sources = readdirSync(web, { recursive: true, encoding: "utf8" })
  .filter((name) => /\.tsx?$/.test(name) && !name.startsWith("words"))
  .map((name) => readFileSync(join(web, name), "utf8"))
  .join("\n");

/** The facts that a text names. */
function factsOf(text: string): readonly string[] {
  return [...new Set(text.match(/\{\w+\}/g))].sort();
}

test("both languages have the same words, and name the same facts in them", () => {
  expect(Object.keys(zh)).toEqual(Object.keys(en));
  for (const [word, text] of Object.entries(zh)) {
    const english = en[word as keyof typeof en];
    for (const form of english.split("|")) expect([word, factsOf(text)]).toEqual([word, factsOf(form)]);
  }
});

test("nothing is left untranslated", () => {
  const same = Object.entries(zh).filter(
    ([word, text]) =>
      word !== "otherLanguage" && !/[\u4e00-\u9fff]/.test(text) && /\w/.test(text.replaceAll(/\{\w+\}/g, "")),
  );
  // Words that Chinese users say in English.
  expect(same.map(([word]) => word)).toEqual(["tokens"]);
  expect(Object.entries(en).filter(([word, text]) => word !== "otherLanguage" && /[\u4e00-\u9fff]/.test(text))).toEqual(
    [],
  );
});

test("every state has a word", () => {
  const ofProviders = ["up", "down", "drained", "closed", "open", "half_open"];
  const unnamed = [...codeStates, ...accountStates, ...ofProviders].filter((state) => !(`state_${state}` in en));
  expect(unnamed).toEqual([]);
});

test("every word is used", () => {
  const byPrefix = ["error_", "state_", "metric_", "per_", "attention_", "theme_", "price_", "role_"];
  const unused = Object.keys(en).filter(
    (word) => !byPrefix.some((prefix) => word.startsWith(prefix)) && !new RegExp(`["\`.]${word}["\`]`).test(sources),
  );
  expect(unused).toEqual([]);
});

test("Chinese text has Chinese punctuation", () => {
  const wrong = Object.entries(zh).filter(([, text]) => /[\u4e00-\u9fff][,;:!?]|[\u4e00-\u9fff]\.(\s|$)/.test(text));
  expect(wrong).toEqual([]);
});
