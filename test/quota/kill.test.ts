import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parse } from "smol-toml";
import { describe, expect, it } from "vitest";
import { systemClock } from "../../src/lib/clock.ts";
import type { QuotaLimit } from "../../src/quota/ledger.ts";
import { compileSrc } from "../support/compiled-src.ts";
import { openTestLedger, usedOf } from "../support/ledger.ts";
import { tempDir } from "../support/temp-dir.ts";

const users = ["alice", "bob", "carol"];
/** All that these do is in one group. */
const members = ["alice", "bob"];
const totals: QuotaLimit[] = [
  { metric: "requests", per: "total", max: 1e9 },
  { metric: "tokens", per: "total", max: 1e9 },
];

/**
 * Spends without end and says so: "c USER" after a commit, "s USER" after a settle; a first charge is 10 tokens, a
 * final 70.
 */
const spender = `
import { writeSync } from "node:fs";
import { openMemoryLedger } from "./quota/memory/memory-ledger.js";
const log = { debug() {}, info() {}, warn() {}, error(facts, message) { throw new Error(message); } };
const ledger = await openMemoryLedger({
  usersDir: process.argv[2],
  clock: { now: () => Date.now(), monotonic: () => performance.now() },
  log,
  quota: { timezone: "Asia/Shanghai", monthly_reset_day: 1 },
  storage: { durability: process.argv[3], sync_interval_ms: 5, snapshot_interval_seconds: 0.01, segment_bytes: 4096 },
  usage: { keep_days: 90 },
});
const amount = (tokens) => ({ requests: 1, tokens, cost: 0, currency: "CNY" });
for (let i = 0; ; i++) {
  const user = ${JSON.stringify(users)}[i % ${users.length}];
  const group = ${JSON.stringify(members)}.includes(user) ? "red" : undefined;
  const ask = { user, group, limits: [], requestId: "r" + i, model: "m", upperBound: amount(100) };
  const hold = ledger.reserve(ask);
  await hold.commit(amount(10));
  writeSync(1, "c " + user + "\\n");
  const usage = { input: 70, cached: 0, output: 0, reasoning: 0 };
  hold.settle({ outcome: "completed", charge: amount(70), usage, estimated: false, price: "" });
  writeSync(1, "s " + user + "\\n");
  if (i % 20 === 0) await new Promise(setImmediate);
}
`;

/** Runs the spender until it has said \`lines\` lines, kills it, and returns all that it had said. */
async function spendUntilKilled(code: string, folder: string, durability: string, lines: number): Promise<string[]> {
  const child = spawn(process.execPath, [join(code, "spender.js"), folder, durability], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const said: string[] = [];
  createInterface({ input: child.stdout }).on("line", (line) => {
    said.push(line);
    if (said.length === lines) child.kill("SIGKILL");
  });
  const [code_, signal] = (await once(child, "close")) as [number | null, string | null];
  expect([code_, signal]).toEqual([null, "SIGKILL"]);
  return said;
}

describe("kill -9 in the middle of the work", () => {
  it.each(["interval", "strict"])(
    "again and again loses and doubles no acknowledged charge, of a user as of a group, %s",
    async (durability) => {
      const code = tempDir();
      compileSrc(code, ["lib", "quota", "errors.ts"]);
      writeFileSync(join(code, "spender.js"), spender);
      const folder = tempDir();
      const expected = new Map(users.map((user) => [user, [0, 0]]));
      for (const lines of [1, 2, 3, 50, 201, 1000, 1503]) {
        const said = await spendUntilKilled(code, folder, durability, lines);
        for (const file of readdirSync(folder).filter((name) => /^[^.].*\.toml$/.test(name))) {
          expect(parse(readFileSync(join(folder, file), "utf8"))).toHaveProperty("covers_seq");
        }
        const recovered = await openTestLedger(folder, systemClock);
        let inFlight = 0;
        for (const user of users) {
          const before = expected.get(user) ?? [];
          const [requests = 0, tokens = 0] = usedOf(recovered, totals, user);
          const commits = said.filter((line) => line === `c ${user}`).length;
          const settles = said.filter((line) => line === `s ${user}`).length;
          const unsaid = requests - ((before[0] ?? 0) + commits);
          expect(unsaid).toBeGreaterThanOrEqual(0);
          inFlight += unsaid;
          // Each charge is 10 until its settle makes it 70; one settle may have been made and not said.
          const atLeast = (before[1] ?? 0) + 10 * (commits + unsaid) + 60 * settles;
          expect([atLeast, atLeast + 60]).toContain(tokens);
          expected.set(user, [requests, tokens]);
        }
        expect(inFlight).toBeLessThanOrEqual(1);
        const ofGroup = totals.map((limit): QuotaLimit => ({ ...limit, group: "red" }));
        const sums = totals.map((_limit, at) => members.reduce((sum, one) => sum + (expected.get(one)?.[at] ?? 0), 0));
        expect(usedOf(recovered, ofGroup)).toEqual(sums);
      }
    },
  );
});
