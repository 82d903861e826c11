// What one charge costs, journal included, without any HTTP around it.
import { mkdirSync } from "node:fs";
import { openMemoryLedger } from "../dist/quota/memory-ledger.js";

const quiet = { debug() {}, info() {}, warn() {}, error() {} };
const clock = { now: () => Date.now(), monotonic: () => performance.now() };
const limits = [{ metric: "requests", per: "month", max: Number.MAX_SAFE_INTEGER }];
const charge = { requests: 1, tokens: 0, cost: 0, currency: "CNY" };
const usage = { input: 100, cached: 0, output: 100, reasoning: 0 };
const userCount = 1000;
/** Charges between two turns of the event loop, about what a busy server does. */
const batch = 50;

/** Reserves, commits and settles `rounds` times; answers with µs of CPU and of time per charge, syncs included. */
export async function measureLedger(usersDir, rounds) {
  mkdirSync(usersDir, { recursive: true });
  const options = {
    usersDir,
    clock,
    log: quiet,
    quota: { timezone: "Asia/Shanghai", monthly_reset_day: 1 },
    storage: {
      durability: "interval",
      sync_interval_ms: 50,
      snapshot_interval_seconds: 5,
      segment_bytes: 16 << 20,
    },
  };
  const ledger = await openMemoryLedger(options);
  await charges(ledger, Math.min(rounds, 20_000));
  const startedAt = performance.now();
  const cpuBefore = process.cpuUsage();
  await charges(ledger, rounds);
  const { user, system } = process.cpuUsage(cpuBefore);
  const elapsedMs = performance.now() - startedAt;
  await ledger.close();

  const reopenedAt = performance.now();
  const reopened = await openMemoryLedger(options);
  const openMs = performance.now() - reopenedAt;
  await reopened.close();
  return {
    "ledger: CPU of reserve + commit + settle, µs": (user + system) / rounds,
    "ledger: time of reserve + commit + settle, µs": (elapsedMs * 1000) / rounds,
    [`ledger: start with ${userCount} users, ms`]: openMs,
  };
}

async function charges(ledger, rounds) {
  for (let done = 0; done < rounds; done++) {
    const hold = ledger.reserve({
      user: `user-${done % userCount}`,
      limits,
      requestId: `0123456789abcdef${done}`,
      model: "deepseek-flash",
      upperBound: charge,
      firstCharge: charge,
    });
    hold.commit();
    hold.settle({ outcome: "completed", charge, usage, estimated: false });
    if (done % batch === 0) await new Promise((resolve) => setImmediate(resolve));
  }
}
