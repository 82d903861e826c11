import { expect, it } from "vitest";
import { boundedMemo } from "../../src/lib/generation-map.ts";

function counting(max: number) {
  const asked: string[] = [];
  const memo = boundedMemo(max, (key) => {
    asked.push(key);
    return { key };
  });
  return { asked, memo };
}

it("makes each value once", () => {
  const { asked, memo } = counting(10);
  expect(memo("a")).toBe(memo("a"));
  expect(asked).toEqual(["a"]);
});

it("forgets the oldest once it is full", () => {
  const { asked, memo } = counting(2);
  for (const key of ["a", "b", "c", "b", "c", "a"]) expect(memo(key).key).toBe(key);
  expect(asked).toEqual(["a", "b", "c", "a"]);
});
