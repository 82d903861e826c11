import { expect, it, onTestFinished } from "vitest";
import type { BucketState } from "../../../src/quota/ledger.ts";
import type { HoldPart } from "../../../src/quota/redis/hold-calls.ts";
import { createSlices } from "../../../src/quota/redis/slices.ts";
import { createCapturedLog } from "../../support/captured-log.ts";
import { eventually } from "../../support/eventually.ts";
import { holdPart } from "../../support/hold-part.ts";
import { ask, monthly } from "../../support/ledger.ts";
import { createManualClock } from "../../support/manual-clock.ts";

const limit = monthly(100);
const spendMs = 60_000;

/** Slices over a Redis that grants everything, and answers releases once it is asked to. */
function start() {
  const clock = createManualClock(0);
  const reserved = new Set<HoldPart>();
  const releases: (() => void)[] = [];
  let answersReleases = true;
  let ids = 0;
  const slices = createSlices({
    redis: {
      awayMs: () => 0,
      keyIn: (tag, kind) => `${tag}:${kind}`,
      call: (_name, _keys, [, ...members]) => Promise.resolve(members.map(() => 1)),
    },
    calls: {
      reserve(parts) {
        for (const part of parts) reserved.add(part);
        return Promise.resolve([]);
      },
      async settle(part) {
        if (!answersReleases) await new Promise<void>((resolve) => releases.push(resolve));
        reserved.delete(part);
        return [];
      },
    },
    partsOf: () => [holdPart(String(++ids))],
    share: 0.2,
    spendMs,
    keepMs: 2 * spendMs,
    monotonic: () => clock.monotonic(),
    log: createCapturedLog(),
  });
  onTestFinished(() => slices.close());
  const served = (remaining: number): void => {
    const bucket: BucketState = { limit, used: 0, reserved: 0, remaining, resetAt: null };
    slices.served(ask({ limits: [limit] }), [bucket]);
  };
  return {
    slices,
    clock,
    reserved,
    served,
    holdReleases: () => (answersReleases = false),
    answerReleases() {
      answersReleases = true;
      for (const release of releases.splice(0)) release();
    },
  };
}

it("holds one slice for a user whose requests go on while the slice is replaced, and none once they have ended", async () => {
  const { slices, clock, reserved, served, holdReleases, answerReleases } = start();
  served(100);
  await eventually(() => {
    expect(slices.count()).toBe(1);
  });
  // Little is left now: the slice is replaced by a smaller one.
  clock.advance(spendMs / 2);
  served(10);
  holdReleases();
  const beat = slices.beat();
  await eventually(() => {
    expect(slices.count()).toBe(0);
  });
  for (let i = 0; i < 3; i++) served(10);
  answerReleases();
  await beat;
  await eventually(() => {
    expect([slices.count(), reserved.size]).toEqual([1, 1]);
  });
  clock.advance(2 * spendMs);
  await slices.beat();
  expect([slices.count(), reserved.size]).toEqual([0, 0]);
});
