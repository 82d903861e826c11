import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { createLineBatch } from "../../src/events/logger.ts";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

function batch() {
  const written: string[] = [];
  return { written, lines: createLineBatch((text) => written.push(text), { length: 10, ms: 100 }) };
}

it("hands lines on together once there are enough of them", () => {
  const { written, lines } = batch();
  for (const line of ["1234\n", "1234\n", "5\n"]) lines.write(line);
  expect(written).toEqual(["1234\n1234\n"]);
});

it("lets no line wait longer than its time", () => {
  const { written, lines } = batch();
  lines.write("1\n");
  vi.advanceTimersByTime(60);
  lines.write("2\n");
  vi.advanceTimersByTime(39);
  expect(written).toEqual([]);
  vi.advanceTimersByTime(1);
  expect(written).toEqual(["1\n2\n"]);
  vi.advanceTimersByTime(1000);
  expect(written).toHaveLength(1);
});

it("hands on at once when told so, and nothing twice", () => {
  const { written, lines } = batch();
  lines.write("1\n");
  lines.flush();
  lines.flush();
  vi.advanceTimersByTime(1000);
  expect(written).toEqual(["1\n"]);
  expect(vi.getTimerCount()).toBe(0);
});
