import { describe, expect, it } from "vitest";
import { createFreshCache } from "../../../src/identity/redis/fresh-cache.ts";
import { createManualClock } from "../../support/manual-clock.ts";

function use() {
  const clock = createManualClock();
  const stored = new Map<string, string>();
  const test = { reads: 0, isAway: false, trustedAwayMs: 0, gate: Promise.resolve() };
  const cache = createFreshCache<string>({
    async read(key) {
      test.reads++;
      const value = stored.get(key);
      await test.gate;
      if (test.isAway) throw new Error("away");
      return value;
    },
    trustedAwayMs: () => test.trustedAwayMs,
    monotonic: () => clock.monotonic(),
  });
  /** Holds all reads from now on; returns what lets them go. */
  function hold(): () => void {
    let open: () => void = () => undefined;
    test.gate = new Promise((resolve) => (open = resolve));
    return open;
  }
  return { clock, stored, test, cache, hold };
}

describe("what is cached of Redis", () => {
  it("is given at once while it may be trusted, whether it exists or not", async () => {
    const { stored, cache, test, clock } = use();
    stored.set("a", "1");
    expect([await cache.get("a"), await cache.get("b")]).toEqual(["1", undefined]);
    clock.advance(500);
    expect([cache.get("a"), cache.get("b")]).toEqual(["1", undefined]);
    expect(test.reads).toBe(2);
  });

  it("is used for longer while Redis is away, if it is to be: but not what has changed, nor what does not exist", async () => {
    const { stored, cache, test, clock } = use();
    for (const key of ["a", "b"]) {
      stored.set(key, "1");
      await cache.get(key);
    }
    await cache.get("none");
    cache.forget("b");
    cache.forgetAll();
    clock.advance(59_000);
    test.isAway = true;
    await expect(cache.get("a")).rejects.toThrow("away");
    test.trustedAwayMs = 60_000;
    expect(cache.get("a")).toBe("1");
    await expect(cache.get("b")).rejects.toThrow("away");
    await expect(cache.get("none")).rejects.toThrow("away");
    clock.advance(1000);
    await expect(cache.get("a")).rejects.toThrow("away");
    test.isAway = false;
    test.trustedAwayMs = 0;
    expect(await cache.get("a")).toBe("1");
  });

  it("is read once for all who wait", async () => {
    const { stored, cache, test } = use();
    stored.set("a", "1");
    expect(await Promise.all(Array.from({ length: 20 }, async () => cache.get("a")))).toEqual(Array(20).fill("1"));
    expect(test.reads).toBe(1);
  });

  it("is read beside its use before it is too old, and waited for after", async () => {
    const { stored, cache, test, clock } = use();
    stored.set("a", "1");
    await cache.get("a");
    stored.set("a", "2");
    clock.advance(600);
    expect(cache.get("a")).toBe("1");
    expect(test.reads).toBe(2);
    await Promise.resolve();
    await cache.renew("a");
    clock.advance(900);
    stored.set("a", "3");
    expect(await cache.get("a")).toBe("3");
  });

  it("is never older than allowed, whatever fails", async () => {
    const { stored, cache, test, clock } = use();
    stored.set("a", "1");
    await cache.get("a");
    test.isAway = true;
    clock.advance(899);
    expect(cache.get("a")).toBe("1");
    clock.advance(1);
    await expect(cache.get("a")).rejects.toThrow("away");
    test.isAway = false;
    expect(await cache.get("a")).toBe("1");
  });

  it("is read again after a change, also by those who come while an older read is on its way", async () => {
    const { stored, cache, hold } = use();
    stored.set("a", "1");
    const open = hold();
    const before = cache.get("a");
    stored.set("a", "2");
    cache.forget("a");
    const after = cache.get("a");
    open();
    expect(await before).toBe("1");
    expect(await after).toBe("2");
    expect(await cache.get("a")).toBe("2");
  });

  it("is dropped as a whole where changes may have been missed", async () => {
    const { stored, cache, test } = use();
    stored.set("a", "1");
    await cache.get("a");
    await cache.get("b");
    stored.set("a", "2").set("b", "2");
    cache.forgetAll();
    expect([await cache.get("a"), await cache.get("b")]).toEqual(["2", "2"]);
    expect(test.reads).toBe(4);
  });
});
