import { describe, expect, it } from "vitest";
import { createGenerationMap } from "../../src/lib/generation-map.ts";

describe("the generation map", () => {
  it("always holds the last half of its bound, and never more than the bound", () => {
    const map = createGenerationMap<number>(
      10,
      () => Infinity,
      () => 0,
    );
    for (let index = 0; index < 1000; index += 1) {
      map.set(`key${index}`, index);
      expect(map.size).toBeLessThanOrEqual(10);
      for (let back = 0; back < 5 && back <= index; back += 1) expect(map.get(`key${index - back}`)).toBe(index - back);
    }
  });

  it("keeps what is set again and again, once and as it was set last", () => {
    const map = createGenerationMap<number>(
      4,
      () => Infinity,
      () => 0,
    );
    for (let index = 0; index < 100; index += 1) {
      map.set("steady", index);
      map.set(`key${index}`, index);
      expect(map.get("steady")).toBe(index);
    }
    expect([...map.values()].filter((value) => value === 99)).toEqual([99, 99]);
  });

  it("keeps what has been set for its life, and drops it before twice of it is over", () => {
    let now = 0;
    const map = createGenerationMap<string>(
      Infinity,
      () => 100,
      () => now,
    );
    map.set("a", "a");
    now = 99;
    map.set("b", "b");
    now = 100;
    map.set("c", "c");
    expect([...map.values()]).toEqual(["a", "b", "c"]);
    now = 200;
    map.set("d", "d");
    expect([...map.values()]).toEqual(["c", "d"]);
  });

  it("deletes from either generation", () => {
    const map = createGenerationMap<number>(
      4,
      () => Infinity,
      () => 0,
    );
    for (const key of ["a", "b", "c"]) map.set(key, 1);
    map.delete("a");
    map.delete("c");
    expect([map.get("a"), map.get("b"), map.get("c"), map.size]).toEqual([undefined, 1, undefined, 1]);
  });
});
