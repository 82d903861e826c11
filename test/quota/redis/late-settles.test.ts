import { expect, it, onTestFinished, vi } from "vitest";
import { createLateSettles } from "../../../src/quota/redis/late-settles.ts";
import { createCapturedLog } from "../../support/captured-log.ts";
import { ask, charge, settlement } from "../../support/ledger.ts";

it("loses nothing where they are closed while some are being tried", async () => {
  vi.useFakeTimers({ toFake: ["setInterval"] });
  onTestFinished(() => {
    vi.useRealTimers();
  });
  const log = createCapturedLog();
  const ended: string[] = [];
  const late = createLateSettles({ monotonic: () => 0, log, onEnd: () => ended.push("one") });
  let answer: (() => void) | undefined;
  const tried: string[] = [];
  const keep = (requestId: string, settle: () => Promise<void>): void => {
    const request = ask({ requestId });
    const kept = { request, settlement: settlement(charge(1)), parts: [] };
    late.keep({
      ...kept,
      settle: async () => {
        tried.push(requestId);
        await settle();
        return [];
      },
    });
  };
  keep("slow", () => new Promise((resolve) => (answer = resolve)));
  vi.advanceTimersByTime(1000);
  expect(tried).toEqual(["slow"]);
  keep("last", () => Promise.resolve());
  const closing = late.close();
  answer?.();
  await closing;
  expect([tried, ended.length, late.count(), log.lines]).toEqual([["slow", "last"], 2, 0, []]);
});
