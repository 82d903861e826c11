import { describe, expect, it } from "vitest";
import { findDisguised } from "../../src/lib/key-disguise.ts";

describe("findDisguised", () => {
  const names = new Set(["model", "stream", "max_tokens", "kind"]);

  it.each([
    ["MODEL", "model"],
    ["modeL", "model"],
    ["Max_Tokens", "max_tokens"],
    ["\u017ftream", "stream"],
    ["\u212aind", "kind"],
    ["model\0", "model"],
    ["Model\0rest", "model"],
    ["model", undefined],
    ["models", undefined],
    ["model ", undefined],
    ["maxTokens", undefined],
    ["", undefined],
  ])("takes %j for %s", (key, name) => {
    expect(findDisguised({ model: 1, [key]: 2 }, names)?.name).toBe(name);
  });
});
