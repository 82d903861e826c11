import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { runBillCli } from "../../src/cli/bill-commands.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { createPricing, costOf } from "../../src/quota/pricing/pricing.ts";
import type { MemoryLedger } from "../../src/quota/memory/memory-ledger.ts";
import { runCli } from "../support/cli.ts";
import { ask, charge, openTestLedger } from "../support/ledger.ts";
import { tempDir } from "../support/temp-dir.ts";

const config = (output = 4, more = "") => `
[quota]
timezone = "Asia/Shanghai"
[[models.prices]]
models = ["m-*"]
currency = "CNY"
cache_hit = 0.5
cache_miss = 1
output = ${output}
${more}`;

const price = createPricing({
  models: {
    prices: [
      { models: ["m-*"], currency: "CNY", cache_hit: 0.5, cache_miss: 1, output: 4, valid_from: undefined },
    ] as never,
    weights: {},
  },
  timezone: "Asia/Shanghai",
  currency: "CNY",
}).priceAt("deep", "m-1", 0);

/** A request, whose first charge is for 10 tokens. */
async function request(ledger: MemoryLedger, user: string, requestId: string, cost?: number, isSettled = true) {
  const hold = ledger.reserve(ask({ user, requestId, limits: [], model: "m-1" }));
  const first = costOf(price, { input: 10, cached: 0, output: 0, reasoning: 0 });
  await hold.commit(charge(1, 10, first), { provider: "deep", price: price.id });
  if (!isSettled) return;
  const usage = { input: 1001, cached: 400, output: 333, reasoning: 30 };
  const final = charge(1, 1334, cost ?? costOf(price, usage));
  await hold.settle({
    outcome: "completed",
    charge: final,
    usage,
    estimated: false,
    price: price.id,
    provider: "deep",
  });
}

/** A folder with some requests in it, and its ledger, which goes on running. */
async function use(text = config()): Promise<{ readonly folder: string; readonly ledger: MemoryLedger }> {
  const folder = tempDir();
  writeFileSync(join(folder, "config.toml"), text);
  const users = join(folder, "users");
  mkdirSync(users);
  const storage = { segment_bytes: 1000, journal_archive_days: 40 };
  const before = await openTestLedger(users, systemClock, { storage });
  for (let n = 0; n < 5; n++) await request(before, "alice", `a${n}`);
  await before.close();
  const ledger = await openTestLedger(users, systemClock, { storage });
  onTestFinished(() => ledger.close().catch(() => undefined));
  await request(ledger, "bob", "b1");
  await request(ledger, "bob", "b2", undefined, false);
  await ledger.adjust("bob", { requests: -1, tokens: 0, cost: 5, currency: "USD" }, { reason: "r", by: "root" });
  return { folder, ledger };
}

const bill = (folder: string, ...argv: string[]) => runCli(runBillCli, argv, folder);

describe("npm run bill -- verify", () => {
  it("finds nothing where everything is as it was charged, beside a running server, and changes nothing", async () => {
    const { folder } = await use();
    const journal = join(folder, "users", "journal");
    const sizes = () => readdirSync(journal).map((name) => [name, statSync(join(journal, name)).size]);
    const before = sizes();
    const { code, out, err } = await bill(folder, "verify");
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toMatch(/^alice: 5 requests, 6670 tokens, 0\.010665 CNY; the usage history has the same$/m);
    expect(out).toMatch(
      /^bob: 2 requests, 1344 tokens, 0\.002143 CNY, -1 requests by hand, 0\.000000005 USD by hand; .* the same$/m,
    );
    expect(out).toMatch(/\(Asia\/Shanghai\): 8 requests and changes worked out again, nothing differs$/);
    expect(sizes()).toEqual(before);
    const { code: ofAlice, out: alice } = await bill(folder, "verify", "--user", "alice");
    expect({ ofAlice, lines: alice.split("\n").length }).toEqual({ ofAlice: 0, lines: 2 });
  });

  it("names each request that costs something else, and why", async () => {
    const { folder, ledger } = await use();
    await request(ledger, "bob", "dear", 9_000_000);
    const one = await bill(folder, "verify");
    expect(one.code).toBe(1);
    expect(one.out).toMatch(
      /^differs: dear  bob  \S+  m-1  m-\*@always 0\.5\/1\/4\/4: 0\.009 CNY, by the prices 0\.002133: /m,
    );
    expect(one.out).toMatch(/1 differences, 0 problems$/);

    writeFileSync(join(folder, "config.toml"), config(5));
    const other = await bill(folder, "verify", "--user", "alice");
    expect(other.code).toBe(1);
    expect(other.out.match(/its price is no longer in the config, which its name confirms/g)).toHaveLength(5);

    writeFileSync(join(folder, "config.toml"), config().replace("CNY", "USD"));
    expect((await bill(folder, "verify")).out).toContain("the config has this price in USD");
    writeFileSync(join(folder, "config.toml"), config(4, "valid_until = 2020-01-01"));
    expect((await bill(folder, "verify")).out).toContain("by the config the price was not in force then");
  });

  it("adds up as the usage history does where sums are the largest that are counted", async () => {
    const { folder, ledger } = await use();
    const most = { requests: 0, tokens: Number.MAX_SAFE_INTEGER, cost: Number.MAX_SAFE_INTEGER, currency: "CNY" };
    for (const reason of ["once", "twice"]) await ledger.adjust("carol", most, { reason, by: "root" });
    const { code, out, err } = await bill(folder, "verify", "--user", "carol");
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toContain(
      "carol: 9007199254740991 tokens by hand, 9007199.254740991 CNY by hand; the usage history has the same",
    );
  });

  it("says where sums differ from the usage history, and what of the journal is missing", async () => {
    const { folder, ledger } = await use();
    await ledger.close();
    const snapshot = join(folder, "users", "alice.quota.toml");
    const text = readFileSync(snapshot, "utf8");
    writeFileSync(snapshot, text.replaceAll("tokens = 6670", "tokens = 6671"));
    const one = await bill(folder, "verify");
    expect(one.code).toBe(1);
    expect(one.out).toMatch(/^alice: .*; the usage history has .*: DIFFERS$/m);
    writeFileSync(snapshot, text);
    expect((await bill(folder, "verify")).code).toBe(0);

    const archive = join(folder, "users", "journal", "archive");
    const [first = "", second = ""] = readdirSync(archive).filter((name) => name.includes(".journal"));
    rmSync(join(archive, second));
    const gap = await bill(folder, "verify");
    expect(gap.code).toBe(1);
    expect(gap.err).toMatch(/^error: records \d+ to \d+ are missing$/);
    rmSync(join(archive, first));
    const short = await bill(folder, "verify");
    expect(short).toMatchObject({ code: 1, err: expect.stringMatching(/begin too late$/) });
    const today = new Date(Date.now() + 8 * 3_600_000).toISOString().slice(0, 10);
    expect((await bill(folder, "verify", "--from", today)).err).toMatch(
      /of the time before .* not all records are kept/,
    );
  });

  it.each([
    [["verify", "--from", "yesterday"], "--from yesterday: expected a date"],
    [["verify", "--from", "2026-11-02", "--to", "2026-11-01T00:00:00Z"], "verify takes whole days"],
    [["verify", "--from", "2026-11-02", "--to", "2026-11-01"], "--from 2026-11-02 is after --to 2026-11-01"],
    [["verify", "--model", "m"], "verify takes no --model"],
    [["verify", "--user", "No One"], "No One is no user name"],
    [["export", "--from", "2026-11-02", "--to", "2026-11-01"], "--from 2026-11-02 is after --to 2026-11-01"],
    [["export", "--format", "xml"], "--format xml: expected ndjson or csv"],
    [["export", "now"], "export takes no further word"],
    [["pay"], 'there is no command "pay"'],
    [[], "say what to do"],
  ])("refuses %j", async (argv, message) => {
    const folder = tempDir();
    writeFileSync(join(folder, "config.toml"), config());
    mkdirSync(join(folder, "users", "journal"), { recursive: true });
    mkdirSync(join(folder, "users", "usage"));
    const { code, err } = await bill(folder, ...argv);
    expect(code).toBe(2);
    expect(err).toContain(message);
  });
});

describe("npm run bill -- export", () => {
  it("writes what the route does", async () => {
    const { folder } = await use();
    const json = await bill(folder, "export", "--user", "bob");
    expect(json.code).toBe(0);
    expect(json.out.split("\n").map((line) => JSON.parse(line) as object)).toMatchObject([
      { kind: "request", request_id: "b1", provider: "deep" },
      { kind: "adjust", cost: "0.000000005" },
      { kind: "request", request_id: "b2", outcome: "unsettled" },
      { end: true, rows: 3, complete: true },
    ]);
    const csv = await bill(folder, "export", "--format", "csv", "--model", "m-1");
    expect(csv.out.split("\r\n")).toHaveLength(9);
  });

  it("exits with 1 where a file is damaged, and writes the rest", async () => {
    const { folder } = await use();
    const archive = join(folder, "users", "journal", "archive");
    const [first = ""] = readdirSync(archive).filter((name) => name.includes(".journal"));
    writeFileSync(join(archive, first), "x");
    const { code, out, err } = await bill(folder, "export");
    expect(code).toBe(1);
    expect(err).toContain(`error: ${first}: damaged at byte 0`);
    expect(out.split("\n").length).toBeGreaterThan(4);
    expect(out).toMatch(/"kind":"error","error":".*\n.*"complete":false/s);
  });
});
