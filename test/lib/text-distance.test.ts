import { describe, expect, it } from "vitest";
import { nearestWord } from "../../src/config/explain.ts";

const known = ["host", "port", "trust_proxy", "body_limit_bytes", "requests_per_second"];

describe("nearestWord", () => {
  it.each([
    ["prot", "port"],
    ["por", "port"],
    ["hosts", "host"],
    ["Port", "port"],
    ["trustproxy", "trust_proxy"],
    ["trust-proxies", "trust_proxy"],
    ["body_limit", undefined],
    ["request_per_seconds", "requests_per_second"],
    ["color", undefined],
    ["x", undefined],
    ["", undefined],
  ])("for %j says %s", (word, expected) => {
    expect(nearestWord(word, known)).toBe(expected);
  });

  it("prefers the nearest word, and of equally near ones the first", () => {
    expect(nearestWord("abcdef", ["abcxyf", "abcdex", "abcdey"])).toBe("abcdex");
  });

  it("counts a swap of neighbours as one mistake", () => {
    expect(nearestWord("ba", ["ab"])).toBe("ab");
    expect(nearestWord("bca", ["abc"])).toBeUndefined();
  });

  it("leaves words of more than 64 letters alone", () => {
    const long = "a".repeat(65);
    expect(nearestWord(long, [long, "a"])).toBeUndefined();
    expect(nearestWord("a".repeat(64), [long, "a".repeat(63)])).toBe("a".repeat(63));
  });
});
