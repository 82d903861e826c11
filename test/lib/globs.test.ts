import { fc } from "../support/fast-check.ts";
import { describe, expect, it } from "vitest";
import { globMatcher, moreLiteralFirst } from "../../src/lib/globs.ts";

describe("a glob", () => {
  it.each([
    ["deepseek-*", "deepseek-flash", true],
    ["deepseek-*", "deepseek-", true],
    ["deepseek-*", "my-deepseek-flash", false],
    ["*", "anything\nat all", true],
    ["glm-4.6", "glm-4x6", false],
    ["*-pro*", "v4-pro-max", true],
    ["a[b]c", "abc", false],
  ])("%s and %s: %s", (glob, name, matches) => {
    expect(globMatcher(glob)(name)).toBe(matches);
  });

  it("without a star matches itself alone", () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (a, b) => {
        fc.pre(!a.includes("*"));
        expect(globMatcher(a)(a)).toBe(true);
        expect(globMatcher(a)(b)).toBe(a === b);
      }),
    );
  });
});

describe("the order of globs", () => {
  it("puts names before globs, and globs that say more before those that say less", () => {
    const globs = ["*", "deepseek-*", "x", "deepseek-v4*", "deepseek-flash"];
    expect(globs.sort(moreLiteralFirst)).toEqual(["deepseek-flash", "x", "deepseek-v4*", "deepseek-*", "*"]);
  });

  it("leaves equals in their order", () => {
    expect(["*-b", "a-*", "-*c"].sort(moreLiteralFirst)).toEqual(["*-b", "a-*", "-*c"]);
  });
});
