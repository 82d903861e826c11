import { describe, expect, it } from "vitest";
import { latenciesOf, ProviderStats, RetryBudget } from "../../src/providers/provider-health.ts";

describe("a provider's figures", () => {
  it("are empty before the first answer", () => {
    const stats = new ProviderStats();
    expect(stats.outcomes()).toEqual({ total: 0, failed: 0 });
    expect(latenciesOf(stats.firstEventTimes())).toBeNull();
  });

  it("are those of the last 256 answers, however many there were", () => {
    const stats = new ProviderStats();
    for (let i = 0; i < 1000; i++) {
      stats.recordFirstEvent(9999);
      stats.recordOutcome(true);
    }
    for (let ms = 1; ms <= 256; ms++) {
      stats.recordFirstEvent(ms);
      stats.recordOutcome(ms % 4 === 0);
    }
    expect(stats.outcomes()).toEqual({ total: 256, failed: 64 });
    expect(latenciesOf(stats.firstEventTimes())).toEqual({ p50: 128, p90: 231, p99: 254 });
    expect(stats.failed).toBe(1064);
  });
});

describe("a retry budget", () => {
  it("has a small reserve, and then a fifth of what is asked", () => {
    const budget = new RetryBudget();
    let taken = 0;
    while (budget.tryTake()) taken++;
    expect(taken).toBe(10);
    for (let i = 0; i < 500; i++) {
      budget.earn();
      if (budget.tryTake()) taken++;
    }
    expect(taken).toBeGreaterThanOrEqual(109);
    expect(taken).toBeLessThanOrEqual(110);
  });

  it("saves no more than the reserve in good times", () => {
    const budget = new RetryBudget();
    for (let i = 0; i < 10_000; i++) budget.earn();
    let taken = 0;
    while (budget.tryTake()) taken++;
    expect(taken).toBe(10);
  });
});
