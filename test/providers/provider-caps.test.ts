import { describe, expect, test } from "vitest";
import { parseConfig } from "../../src/config/load.ts";
import { createProviderCaps } from "../../src/providers/provider-caps.ts";

function open(toml: string) {
  let now = 0;
  const { concurrency } = parseConfig(toml, "test.toml");
  const caps = createProviderCaps(
    () => concurrency,
    () => now,
  );
  return {
    capOf: () => caps.capOf("simulator"),
    limited: (times = 1, inFlight = 100) => {
      for (let i = 0; i < times; i++) caps.adapt("simulator", { firstEventMs: null, inFlight });
    },
    served: (firstEventMs: number, times = 1, inFlight = 100) => {
      for (let i = 0; i < times; i++) caps.adapt("simulator", { firstEventMs, inFlight });
    },
    pass: (ms: number) => (now += ms),
  };
}

const adaptive = "[concurrency.adaptive]\nenabled = true\n";

describe("the cap of a provider", () => {
  test("is the config's, and none without one, whatever happens, unless it is to adapt", () => {
    const fixed = open("[concurrency.per_provider]\nsimulator = 7\n");
    fixed.limited(100);
    expect(fixed.capOf()).toBe(7);
    expect(open("").capOf()).toBe(Infinity);
  });

  test("comes down once in a cap-ful of results while the provider limits requests, never below the least", () => {
    const cap = open(adaptive);
    expect(cap.capOf()).toBe(64);
    cap.limited();
    expect(cap.capOf()).toBe(51);
    cap.limited(50);
    expect(cap.capOf()).toBe(51);
    cap.limited();
    expect(cap.capOf()).toBe(40);
    cap.limited(10_000);
    expect(cap.capOf()).toBe(2);
  });

  test("rises by one for each cap-ful of good results, while it is in use, up to the config's", () => {
    const cap = open(`${adaptive}[concurrency.per_provider]\nsimulator = 10\n`);
    cap.limited();
    expect(cap.capOf()).toBe(8);
    cap.served(50, 100, 3);
    expect(cap.capOf()).toBe(8);
    cap.served(50, 9, 5);
    expect(cap.capOf()).toBe(9);
    cap.served(50, 1000, 9);
    expect(cap.capOf()).toBe(10);
  });

  test("comes down when first events take longer than the best minute of the last ten, once one is known", () => {
    const cap = open(adaptive);
    cap.served(5000, 4, 0);
    cap.pass(60_000);
    cap.served(100, 5, 0);
    expect(cap.capOf()).toBe(64);
    cap.pass(60_000);
    cap.served(200, 1, 0);
    expect(cap.capOf()).toBe(64);
    cap.served(201, 1, 0);
    expect(cap.capOf()).toBe(51);
    // Ten minutes later that minute is forgotten.
    cap.pass(11 * 60_000);
    cap.served(900, 60, 0);
    expect(cap.capOf()).toBe(51);
  });

  test("stays as it is while nobody asks", () => {
    const cap = open(adaptive);
    cap.limited();
    cap.pass(3_600_000);
    expect(cap.capOf()).toBe(51);
  });

  test.each([
    ["[concurrency.per_provider]\nnobody = 3\n", "expected the name of a provider: simulator"],
    ["[concurrency.per_provider]\nsimulator = 0\n", "at least 1"],
    ["[concurrency.per_provider]\nsimulator = 1.5\n", "whole number"],
    ["[concurrency]\nmax_total = -1\n", "at least 0"],
    ["[concurrency.per_model]\n'x' = 0\n", "at least 1"],
    [`${adaptive}[concurrency.per_provider]\nsimulator = 1\n`, "expected at least concurrency.adaptive.min"],
    ["[overload]\nloop_delay_ms = 600\n", "expected more than loop_delay_ms, which is 600"],
    ["[server]\nbacklog = 0\n", "at least 1"],
    ["[quota.tiers]\nx = { weight = 0 }\n", "at least 1"],
  ])("is refused in a config where it makes no sense: %s", (toml, problem) => {
    expect(() => parseConfig(toml, "test.toml")).toThrow(problem);
  });
});
