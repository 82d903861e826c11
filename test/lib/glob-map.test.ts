import { expect, it } from "vitest";
import { createGlobMap } from "../../src/lib/globs.ts";

const find = createGlobMap({ "*": "any", "cl-*": "short", "*-x": "tail", "cl-opus*": "long", "cl-opus-4": "name" });

it.each([
  ["cl-opus-4", "name"],
  ["cl-opus-5", "long"],
  ["cl-9", "short"],
  ["CL-9", "any"],
  ["a-x", "tail"],
  ["cl-x", "short"],
])("H9: a name wins over a glob, a longer glob over a shorter one, the first over its equals: %s", (name, value) => {
  expect(find(name)).toBe(value);
});

it("says nothing of what no key matches", () => {
  expect(createGlobMap({ "cl-*": 1 })("dl-1")).toBeUndefined();
  expect(createGlobMap({ a: 0 })("a")).toBe(0);
});
