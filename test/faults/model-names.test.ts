import { describe, expect, it } from "vitest";
import { createRouter } from "../../src/upstream/router.ts";
import { problemsOf } from "../config/support.ts";
import { testProvider } from "../support/provider.ts";

describe("H9: glob aliases", () => {
  const provider = testProvider("one", {
    models: ["m", "special", "cl-listed"],
    modelMap: { m: "their-m", "own-*": "mapped", "own-big*": "big" },
  });
  const aliases = { "cl-*": "m", "cl-opus*": "special", "cl-opus-1": "m" };
  const router = createRouter({ providers: [provider], aliases, random: () => 0 });

  it.each([
    ["cl-sonnet", "m", "their-m"],
    ["cl-opus-4[1m]", "special", "special"],
    ["cl-opus-1", "m", "their-m"],
    ["cl-listed", "cl-listed", "cl-listed"],
    ["own-small", "own-small", "mapped"],
    ["own-big-1", "own-big-1", "big"],
  ])("%s is %s, and %s at the provider", (model, upstreamModel, own) => {
    const route = router.resolve(model, "chat");
    expect(route).toMatchObject({ model, upstreamModel });
    expect(route.candidates[0]?.ownName(route.upstreamModel)).toBe(own);
  });
});

it("H9: a glob is refused where the name of one model is meant", () => {
  expect(problemsOf('[models]\naliases = { "cl-*" = "m-*" }')).toEqual([
    'models.aliases.cl-*: expected the name of a model, without *, got text "m-*"',
  ]);
});
