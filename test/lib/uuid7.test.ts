import { randomFillSync } from "node:crypto";
import { describe, expect, test } from "vitest";
import { createUuid7 } from "../../src/lib/uuid7.ts";

const form = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

describe("UUIDs of version 7", () => {
  test("have the form of RFC 9562 and begin with the time", () => {
    const at = Date.UTC(2026, 10, 22, 10);
    const id = createUuid7(() => at, randomFillSync)();
    expect(id).toMatch(form);
    expect(Number.parseInt(id.replaceAll("-", "").slice(0, 12), 16)).toBe(at);
  });

  test("sort in the order in which they were made, also many within one millisecond", () => {
    const newId = createUuid7(() => 1_000_000, randomFillSync);
    const ids = Array.from({ length: 20_000 }, newId);
    expect([...ids].sort()).toEqual(ids);
    expect(new Set(ids).size).toBe(ids.length);
    for (const id of ids) expect(id).toMatch(form);
  });

  test("keep their order when the clock is set back a little, and follow it when it was far ahead", () => {
    let at = 1_000_000;
    const newId = createUuid7(() => at, randomFillSync);
    const first = newId();
    at -= 5000;
    const second = newId();
    expect(second > first).toBe(true);
    at = 1000;
    expect(newId() < first).toBe(true);
  });
});
