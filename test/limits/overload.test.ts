import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { parseConfig } from "../../src/config/load.ts";
import type { LoadReading } from "../../src/lib/load-reading.ts";
import { createOverload, sampleMs } from "../../src/limits/overload.ts";
import { createPermitRules } from "../../src/limits/permit-rules.ts";

const calm: LoadReading = { loopDelayMs: 0, heapShare: 0.5, descriptorShare: 0.1 };

/** An overload whose readings a test sets; `changes` are the begins and ends. */
function watch(toml = "", running = 32) {
  let reading = calm;
  const changes: string[] = [];
  const overload = createOverload({
    rule: () => parseConfig(toml, "test.toml").overload,
    read: () => reading,
    running: () => running,
    monotonic: () => Date.now(),
    onChange: ({ began, reason }) => changes.push(`${began ? "began" : "ended"} ${reason}`),
  });
  return {
    overload,
    changes,
    /** So many readings of this kind. */
    read(next: Partial<LoadReading>, times = 1): void {
      reading = { ...calm, ...next };
      vi.advanceTimersByTime(times * sampleMs);
    },
  };
}

/** How many of so many requests of each rank are refused. */
function shedOf(overload: ReturnType<typeof watch>["overload"], ranks: number, requests = 100): readonly number[] {
  return Array.from({ length: ranks }, (_, rank) => {
    let shed = 0;
    for (let index = 0; index < requests; index++) if (overload.sheds(rank, ranks)) shed += 1;
    return shed;
  });
}

describe("overload", () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });

  afterEach(() => {
    vi.useRealTimers();
  });

  test("is none while all signs are below their limits", () => {
    const { overload, read, changes } = watch();
    read({ loopDelayMs: 49, heapShare: 0.84, descriptorShare: 0.89 }, 50);
    expect([overload.level(), overload.reason(), shedOf(overload, 2)]).toEqual([0, null, [0, 0]]);
    expect(changes).toEqual([]);
  });

  test("of the event loop begins with the fifth late reading in a row: a pause of the machine is none", () => {
    const { overload, read } = watch();
    read({ loopDelayMs: 5000 }, 4);
    read(calm);
    read({ loopDelayMs: 5000 }, 4);
    expect(overload.level()).toBe(0);
    read({ loopDelayMs: 5000 });
    expect([overload.level(), overload.reason()]).toEqual([0.25, "event_loop"]);
    read({ loopDelayMs: 5000 }, 20);
    expect(overload.level()).toBe(1);
    expect(shedOf(overload, 3)).toEqual([100, 100, 100]);
    read(calm, 20);
    expect([overload.level(), overload.reason()]).toEqual([0, null]);
  });

  test("is none while few chats run, however late the event loop is", () => {
    const { overload, read } = watch("", 31);
    read({ loopDelayMs: 5000 }, 20);
    expect(overload.level()).toBe(0);
  });

  test.each([
    ["heap", { heapShare: 0.9 }, 0.5],
    ["descriptors", { descriptorShare: 0.97 }, 1],
    ["event_loop", { loopDelayMs: 150 }, 0.5],
  ])("of the %s has the level that its sign has between the two limits", (reason, reading, level) => {
    const { overload, read } = watch();
    read(reading, 40);
    expect(overload.reason()).toBe(reason);
    expect(overload.level()).toBeCloseTo(level, 3);
  });

  test("refuses the lightest tiers first, and one tier in an even share", () => {
    const { overload, read } = watch();
    read({ heapShare: 0.9 }, 20);
    expect(shedOf(overload, 1)).toEqual([50]);
    expect(shedOf(overload, 2)).toEqual([100, 0]);
    expect(shedOf(overload, 4)).toEqual([100, 100, 0, 0]);
    const [lightest = 0, middle = 0, heaviest = 0] = shedOf(overload, 3);
    expect([lightest, heaviest]).toEqual([100, 0]);
    expect(Math.abs(middle - 50)).toBeLessThanOrEqual(1);
    const turns = Array.from({ length: 8 }, () => overload.sheds(0, 1));
    expect(turns.filter((shed, index) => shed === turns[index + 1])).toEqual([]);
  });

  test("is reported when it begins, and when it has been over for a second", () => {
    const { read, changes } = watch();
    const second = 1000 / sampleMs;
    read({ heapShare: 0.96 });
    read({ heapShare: 0.8 }, 2 * second);
    expect(changes).toEqual(["began heap"]);
    read({ heapShare: 0.5 }, second);
    read({ heapShare: 0.96 });
    read({ heapShare: 0.5 }, second);
    expect(changes).toEqual(["began heap"]);
    read({ heapShare: 0.5 });
    expect(changes).toEqual(["began heap", "ended heap"]);
  });

  test("is none where it is switched off", () => {
    const { overload, read } = watch("[overload]\nenabled = false\n");
    read({ loopDelayMs: 9000, heapShare: 1, descriptorShare: 1 }, 9);
    expect(overload.level()).toBe(0);
  });

  test("takes no more readings once it is closed", () => {
    const { overload } = watch();
    overload.close();
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("the ranks of tiers", () => {
  test("follow their weights; tiers of one weight share one", () => {
    const config = parseConfig(
      "[quota.tiers]\nfree = {}\nbasic = {}\npro = { weight = 3 }\nteam = { weight = 2 }\n",
      "t",
    );
    const { rankOf, ranks, weightOf } = createPermitRules(config, () => Infinity);
    expect([ranks, ...["free", "basic", "pro", "team", "gone"].map(rankOf)]).toEqual([3, 0, 0, 2, 1, 0]);
    expect(["pro", "gone"].map(weightOf)).toEqual([3, 1]);
  });
});
