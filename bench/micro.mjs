// What money costs without any HTTP around it: a charge with its journal, a recovery, a round of snapshots.
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { openMemoryLedger } from "../dist/quota/memory/memory-ledger.js";

const quiet = { debug() {}, info() {}, warn() {}, error() {} };
const clock = { now: () => Date.now(), monotonic: () => performance.now() };
const limits = [
  { metric: "requests", per: "month", max: Number.MAX_SAFE_INTEGER },
  { metric: "tokens", per: "day", max: Number.MAX_SAFE_INTEGER },
  { metric: "cost", per: "month", max: Number.MAX_SAFE_INTEGER, currency: "CNY" },
];
const amount = (tokens) => ({ requests: 1, tokens, cost: tokens * 1000, currency: "CNY" });
const [upperBound, first, final] = [amount(9000), amount(100), amount(200)];
const usage = { input: 100, cached: 40, output: 100, reasoning: 20 };
const price = "deepseek-flash@2026-09-09T16:00:00Z 0.02/1/4/4";
/** Charges between two turns of the event loop, about what a busy server does. */
const batch = 50;
const chargePasses = 5;
/** Charges under way at once with strict durability: those share a sync. */
const strictAtOnce = 50;

function open(usersDir, storage = {}) {
  mkdirSync(usersDir, { recursive: true });
  return openMemoryLedger({
    usersDir,
    clock,
    log: quiet,
    quota: { timezone: "Asia/Shanghai", monthly_reset_day: 1 },
    storage: {
      durability: "interval",
      sync_interval_ms: 50,
      snapshot_interval_seconds: 5,
      segment_bytes: 16 << 20,
      ...storage,
    },
    usage: { keep_days: 90 },
  });
}

/** All figures about money. `rounds` is the number of charges, `users` of those who make them. */
export async function measureLedger(dir, { rounds, records, users }) {
  return {
    ...(await measureCharges(join(dir, "interval"), rounds, Math.min(users, 1000))),
    ...(await measureStrict(join(dir, "strict"), Math.ceil(rounds / 20))),
    ...(await measureRecovery(join(dir, "recovery"), records)),
    ...(await measureSnapshots(join(dir, "snapshots"), users)),
  };
}

async function measureCharges(usersDir, rounds, users) {
  const ledger = await open(usersDir);
  await charges(ledger, Math.min(rounds, 20_000), users);
  const passes = [];
  for (let pass = 0; pass < chargePasses; pass++) passes.push(await timed(() => charges(ledger, rounds, users)));
  await ledger.close();
  const [least, ...rest] = passes.map(({ cpu }) => cpu / rounds).sort((a, b) => a - b);
  return {
    "ledger: CPU of reserve + commit + settle, the best of 5 passes, µs": least,
    "ledger: the same, the median, µs": rest[(chargePasses >> 1) - 1],
    "ledger: time of reserve + commit + settle, the median, µs":
      (passes.map(({ ms }) => ms).sort((a, b) => a - b)[chargePasses >> 1] * 1000) / rounds,
  };
}

async function measureStrict(usersDir, rounds) {
  const ledger = await open(usersDir, { durability: "strict" });
  const waits = [];
  const { cpu, ms } = await timed(async () => {
    for (let done = 0; done < rounds; done += strictAtOnce) {
      const together = Array.from({ length: strictAtOnce }, async (_, index) => {
        const hold = ledger.reserve(ask(done + index, 100));
        const startedAt = performance.now();
        await hold.commit(first);
        waits.push(performance.now() - startedAt);
        settle(hold);
      });
      await Promise.all(together);
    }
  });
  await ledger.close();
  waits.sort((a, b) => a - b);
  return {
    "ledger, strict: CPU of reserve + commit + settle, µs": cpu / waits.length,
    [`ledger, strict: time a charge, ${strictAtOnce} at once, µs`]: (ms * 1000) / waits.length,
    "ledger, strict: wait for the disk before the first event p50, ms": waits[waits.length >> 1],
    "ledger, strict: wait for the disk before the first event p99, ms": waits[Math.floor(waits.length * 0.99)],
  };
}

/** Two records a charge. Nothing is in snapshots, so all is read again. */
async function measureRecovery(usersDir, records) {
  const writer = await open(usersDir, { snapshot_interval_seconds: 3600, sync_interval_ms: 10_000 });
  await charges(writer, records / 2, 1000);
  // Not closed, as if killed: closing would write the snapshots. Its timers keep no process alive.
  const { ms } = await timed(async () => {
    const reader = await open(usersDir, { snapshot_interval_seconds: 3600 });
    rmSync(join(usersDir, "journal"), { recursive: true });
    void reader;
  });
  return { [`ledger: recovery of ${records.toLocaleString("en")} records, ms`]: ms };
}

async function measureSnapshots(usersDir, users) {
  const ledger = await open(usersDir, { snapshot_interval_seconds: 3600 });
  await charges(ledger, users, users);
  const { cpu, ms } = await timed(() => ledger.close());
  const { ms: openMs } = await timed(async () => (await open(usersDir)).close());
  const count = users.toLocaleString("en");
  return {
    [`ledger: snapshots of ${count} users, ms`]: ms,
    "ledger: CPU of one snapshot, µs": cpu / users,
    [`ledger: start with ${count} users, ms`]: openMs,
  };
}

async function charges(ledger, rounds, users) {
  for (let done = 0; done < rounds; done++) {
    const hold = ledger.reserve(ask(done, users));
    hold.commit(first);
    settle(hold);
    if (done % batch === 0) await new Promise((resolve) => setImmediate(resolve));
  }
}

function ask(number, users) {
  return {
    user: `user-${number % users}`,
    limits,
    requestId: `0123456789abcdef${number}`,
    model: "deepseek-flash",
    upperBound,
  };
}

function settle(hold) {
  hold.settle({ outcome: "completed", charge: final, usage, estimated: false, price });
}

/** µs of CPU, all threads, and ms of time that some work takes. */
async function timed(work) {
  const startedAt = performance.now();
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return { cpu: user + system, ms: performance.now() - startedAt };
}
