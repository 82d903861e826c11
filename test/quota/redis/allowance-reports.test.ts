import { expect, it, onTestFinished } from "vitest";
import { RedisUnavailableError } from "../../../src/lib/redis/redis.ts";
import type { BucketState } from "../../../src/quota/ledger.ts";
import { type AllowanceOptions, openAllowance } from "../../../src/quota/redis/allowance.ts";
import { createCapturedLog } from "../../support/captured-log.ts";
import { eventually } from "../../support/eventually.ts";
import { holdPart } from "../../support/hold-part.ts";
import { ask, charge, monthly, settlement } from "../../support/ledger.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { tempDir } from "../../support/temp-dir.ts";

const limit = monthly(100);

/** An allowance over a Redis that grants everything; `settle` is called for each charge that is reported. */
async function start(settle: (requestId: string) => Promise<void>) {
  let awayMs = 0;
  let ids = 0;
  const clock = createManualClock(0);
  const granted = () => Promise.resolve([] as readonly BucketState[]);
  const calls = { reserve: granted, commit: granted, grow: () => Promise.resolve([]), settle: granted };
  const options: Omit<AllowanceOptions, "redis" | "calls" | "reportCalls" | "partsOf"> = {
    newId: () => String(++ids),
    share: 0.2,
    allowanceMs: 60_000,
    leaseMs: 60_000,
    folder: tempDir(),
    syncIntervalMs: 5,
    clock,
    log: createCapturedLog(),
  };
  const reportCalls = {
    ...calls,
    async settle(_part: unknown, final: { readonly body: string } | null): Promise<readonly BucketState[]> {
      if (final !== null) await settle((JSON.parse(`{${final.body}`) as { requestId: string }).requestId);
      return [];
    },
  };
  const allowance = await openAllowance({
    ...options,
    redis: {
      awayMs: () => awayMs,
      keyIn: (tag: string, kind: string) => `${tag}:${kind}`,
      call: (_name: string, _keys: unknown, [, ...members]: readonly unknown[]) =>
        Promise.resolve(members.map(() => 1)),
    } as unknown as AllowanceOptions["redis"],
    calls: calls as unknown as AllowanceOptions["calls"],
    reportCalls: reportCalls as unknown as AllowanceOptions["reportCalls"],
    partsOf: (id) => [holdPart(id)],
  });
  onTestFinished(() => allowance.close());
  return { allowance, setAway: (isAway: boolean) => (awayMs = isAway ? 1 : 0) };
}

it("counts each charge as reported once, where one of those that were reported with it fails", async () => {
  const waiting: (() => void)[] = [];
  let failures = 1;
  const { allowance, setAway } = await start(async (requestId) => {
    if (requestId === "fails" && failures-- > 0) throw new RedisUnavailableError("for a moment");
    if (requestId === "is late") await new Promise<void>((resolve) => waiting.push(resolve));
  });
  const request = (requestId: string) => ask({ limits: [limit], requestId, upperBound: charge(1, 0) });
  allowance.served(request("first"), [{ limit, used: 0, reserved: 0, remaining: 100, resetAt: null }]);
  await eventually(() => {
    expect(allowance.stats().held).toBe(1);
  });
  setAway(true);
  for (const requestId of ["fails", "is late"]) {
    const hold = allowance.reserve(request(requestId));
    await hold.commit(charge(1, 0), { provider: "p", price: "x" });
    await hold.settle(settlement(charge(1, 0)));
  }
  setAway(false);
  const report = () => allowance.report().catch(() => undefined);
  const reports = [report()];
  await eventually(() => {
    expect(waiting).toHaveLength(1);
  });
  for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate);
  reports.push(report());
  for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate);
  for (const answer of waiting.splice(0)) answer();
  await Promise.all(reports);
  await eventually(async () => {
    const last = allowance.report();
    for (const answer of waiting.splice(0)) answer();
    await last;
    // What was held in advance comes back once all that was spent of it is reported.
    expect(allowance.stats()).toMatchObject({ unreported: 0, held: 0 });
  });
});
