import { fc } from "../support/fast-check.ts";
import { describe, expect, it } from "vitest";
import { createWindowTally } from "../../src/limits/memory/window-tally.ts";
import { createManualClock } from "../support/manual-clock.ts";

/** A tally whose maximum stays the same. */
function tallyOf(max: number, options: Parameters<typeof createWindowTally>[0]): (user: string) => boolean {
  const tally = createWindowTally(options);
  return (user) => tally.take(user, max);
}

describe("a tally over a window", () => {
  it("counts so many for each user, and no more until the first of them is out of the window", () => {
    const clock = createManualClock();
    const take = tallyOf(2, { windowMs: 1000, clock });
    expect([take("alice"), take("bob")]).toEqual([true, true]);
    clock.advance(400);
    expect([take("alice"), take("alice"), take("bob"), take("bob")]).toEqual([true, false, true, false]);
    clock.advance(599);
    expect(take("alice")).toBe(false);
    clock.advance(1);
    expect([take("alice"), take("alice")]).toEqual([true, false]);
    clock.advance(400);
    expect([take("alice"), take("alice")]).toEqual([true, false]);
  });

  it("counts none with a maximum of 0", () => {
    const take = tallyOf(0, { windowMs: 1000, clock: createManualClock() });
    expect([take("alice"), take("alice")]).toEqual([false, false]);
  });

  it("forgets the user that was counted least recently", () => {
    const take = tallyOf(2, { windowMs: 1000, clock: createManualClock(), maxUsers: 2 });
    for (const user of ["alice", "bob", "alice"]) expect(take(user)).toBe(true);
    expect(take("carol")).toBe(true);
    expect(take("alice")).toBe(false);
    expect([take("bob"), take("bob"), take("bob")]).toEqual([true, true, false]);
  });

  it("follows a maximum that changes", () => {
    const { take } = createWindowTally({ windowMs: 1000, clock: createManualClock() });
    expect([take("alice", 1), take("alice", 1), take("alice", 2), take("alice", 1)]).toEqual([
      true,
      false,
      true,
      false,
    ]);
  });

  it("never has more than the maximum in any span as long as the window", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5 }), fc.array(fc.nat(400), { maxLength: 60 }), (max, pauses) => {
        const clock = createManualClock();
        const take = tallyOf(max, { windowMs: 1000, clock });
        const taken: number[] = [];
        for (const pause of pauses) {
          clock.advance(pause);
          const recent = taken.filter((at) => clock.now() - at < 1000);
          expect(take("alice")).toBe(recent.length < max);
          if (recent.length < max) taken.push(clock.now());
        }
      }),
    );
  });
});
