import { describe, expect, test } from "vitest";
import { Semaphore } from "../../src/limits/memory/memory-concurrency.ts";

function join(semaphore: Semaphore, name: string, granted: string[]): () => void {
  const grant = () => {
    granted.push(name);
  };
  semaphore.join(grant);
  return grant;
}

describe("Semaphore", () => {
  test("gives out as many places as there are", () => {
    const semaphore = new Semaphore(2);
    expect([semaphore.tryTake(), semaphore.tryTake(), semaphore.tryTake()]).toEqual([true, true, false]);
    semaphore.release();
    expect(semaphore.held).toBe(1);
    expect(semaphore.tryTake()).toBe(true);
  });

  test("hands a place that comes free to the first in line", () => {
    const semaphore = new Semaphore(1);
    const granted: string[] = [];
    semaphore.tryTake();
    join(semaphore, "first", granted);
    join(semaphore, "second", granted);
    semaphore.release();
    expect(granted).toEqual(["first"]);
    expect([semaphore.held, semaphore.waiting]).toEqual([1, 1]);
    semaphore.release();
    expect(granted).toEqual(["first", "second"]);
  });

  test("who leaves the line gets no place, and leaving after the grant changes nothing", () => {
    const semaphore = new Semaphore(1);
    const granted: string[] = [];
    semaphore.tryTake();
    const first = join(semaphore, "first", granted);
    const second = join(semaphore, "second", granted);
    semaphore.leave(first);
    semaphore.release();
    semaphore.leave(second);
    expect(granted).toEqual(["second"]);
    expect([semaphore.held, semaphore.waiting]).toEqual([1, 0]);
  });

  test("more places serve the line at once; fewer wait until enough are given back", () => {
    const semaphore = new Semaphore(1);
    const granted: string[] = [];
    semaphore.tryTake();
    for (const name of ["a", "b", "c"]) join(semaphore, name, granted);
    semaphore.resize(3);
    expect(granted).toEqual(["a", "b"]);
    semaphore.resize(1);
    semaphore.release();
    semaphore.release();
    expect(granted).toEqual(["a", "b"]);
    semaphore.release();
    expect(granted).toEqual(["a", "b", "c"]);
    expect(semaphore.held).toBe(1);
  });
});
