// What rate limits cost without any HTTP around them: checks of five rules with as many users as are given.
import { createMemoryRateLimiter } from "../dist/limits/memory/memory-rate-limiter.js";

const clock = { now: () => Date.now(), monotonic: () => performance.now() };
const passes = 5;
/** Requests that are under way at once. */
const batch = 1000;
const most = 1_000_000_000;

const rule = (name, by, metric) => ({
  name,
  by,
  metric,
  max: most,
  perMs: 3_600_000,
  burst: most,
  models: null,
  tiers: null,
  groups: null,
  weights: {},
  isShown: by.length > 0,
});
const rules = [
  rule("global", [], "requests"),
  rule("user_rpm", ["user"], "requests"),
  rule("provider", ["provider"], "tokens"),
  rule("model", ["model"], "tokens"),
  rule("tier", ["tier"], "output_tokens"),
];
const providers = ["p"];
const use = { wasSent: true, tokens: 30, outputTokens: 20 };

/** `users` have a bucket each; `rounds` of checks by random ones of them. */
export function measureRates({ users, rounds }) {
  const limiter = createMemoryRateLimiter({ rules, clock, maxBuckets: 2 * users * 2 });
  const names = Array.from({ length: users }, (_, index) => `user-${index}`);
  const before = heapMb();
  for (const name of names) limiter.take(ask(name));
  const kept = heapMb() - before;

  let seed = 1;
  const random = () => (seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fffffff) % users;
  const tickets = new Array(batch);
  const checks = [];
  const settles = [];
  for (let pass = 0; pass < passes; pass++) {
    let [checkUs, settleUs] = [0, 0];
    for (let done = 0; done < rounds; done += batch) {
      const asked = Array.from({ length: batch }, () => ask(names[random()]));
      checkUs += cpuOf(() => asked.forEach((request, index) => (tickets[index] = limiter.take(request))));
      settleUs += cpuOf(() => tickets.forEach((ticket) => ticket.settle(use)));
    }
    checks.push(checkUs / rounds);
    settles.push(settleUs / rounds);
  }
  const count = users.toLocaleString("en");
  return {
    [`rates: a check of 5 rules, ${count} users, the median of ${passes} passes, µs of CPU`]: median(checks),
    "rates: the correction of a check, the median, µs of CPU": median(settles),
    "rates: memory of these buckets, MB": kept,
  };
}

// prettier-ignore
function ask(user) {
  return {
    requestId: "r", user, tier: "basic", group: null, apiKey: null, ip: "192.0.2.1", model: "m", upstreamModel: "m",
    providers, tokens: 50, outputTokens: 40, isOwnBound: false, factor: 1,
  };
}

/** µs of CPU, all threads. */
function cpuOf(work) {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return user + system;
}

function median(values) {
  return values.sort((a, b) => a - b)[values.length >> 1];
}

/** Without garbage, if the process may collect it. */
function heapMb() {
  globalThis.gc?.();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return (heapUsed + arrayBuffers) / 2 ** 20;
}
