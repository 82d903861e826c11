import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "smol-toml";
import { beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { runBillCli } from "../../src/cli/bill-commands.ts";
import { parseNano } from "../../src/lib/money.ts";
import { createSimulator } from "../../src/simulator/server.ts";
import { startChatLoad, type SeenChat } from "../support/chat-load.ts";
import { runCli } from "../support/cli.ts";
import { quotaOf } from "../support/quota.ts";
import { compiledServer, spawnServer, startServerProcess, type ServerProcess } from "../support/server-process.ts";
import { alicePassword, bearer, post, userFile } from "../support/start-proxy.ts";
import { tempDir } from "../support/temp-dir.ts";

/** Each user sends one body over and over, so that all of its chats are charged alike. */
const bodies: Readonly<Record<string, string>> = {
  anna: body({ model: "sim-paced:400", stream: true, max_tokens: 20 }),
  ben: body({ model: "sim-burst:12", stream: false }),
  cleo: body({ model: "sim-fast", stream: true }),
};
const users = Object.keys(bodies);
const workersEach = 4;

const config = (upstreamUrl: string) => `
[server]
port = 0
[storage]
sync_interval_ms = 5
snapshot_interval_seconds = 0.02
segment_bytes = 4096
[[providers]]
name = "upstream"
kind = "deepseek"
base_url = "${upstreamUrl}"
models = ["*"]
[[models.prices]]
models = ["*"]
currency = "CNY"
cache_hit = 0.02
cache_miss = 1
output = 4
[quota.tiers.basic]
limits = [
  { metric = "requests", per = "total", max = 1000000 },
  { metric = "tokens", per = "total", max = 1000000000 },
  { metric = "cost", per = "total", max = 1000 },
]
[rate_limit]
requests_per_second = 100000
`;

/** Requests, tokens and nano-yuan. */
type Totals = readonly [requests: number, tokens: number, cost: number];

describe("kill -9 of the server", () => {
  let code: string;
  beforeAll(() => {
    code = compiledServer();
  });

  async function prepare(): Promise<string> {
    const simulator = await createSimulator();
    onTestFinished(() => simulator.close());
    const folder = tempDir();
    mkdirSync(join(folder, "users"));
    for (const user of users) {
      const text = userFile(user, alicePassword, `max_parallel = ${workersEach}\n`);
      writeFileSync(join(folder, "users", `${user}.toml`), text);
    }
    writeFileSync(join(folder, "users", "boss.toml"), userFile("boss", alicePassword, 'roles = ["admin"]\n'));
    writeFileSync(join(folder, "config.toml"), config(simulator.url));
    return folder;
  }

  async function start(folder: string): Promise<ServerProcess> {
    const server = await startServerProcess({ code, folder, env: { DEEPSEEK_API_KEY: "sk-test" } });
    onTestFinished(async () => {
      server.kill("SIGKILL");
      await server.ended;
    });
    return server;
  }

  async function work(server: ServerProcess) {
    const tokens = new Map<string, string>();
    for (const user of users) tokens.set(user, await login(server, user));
    const workers = users.flatMap((user) =>
      Array.from({ length: workersEach }, () => ({ user, token: tokens.get(user) ?? "", body: bodies[user] ?? "" })),
    );
    return startChatLoad({ url: server.url, workers });
  }

  it("loses no acknowledged charge, doubles none, and invents none, however often it comes", async () => {
    const folder = await prepare();
    let server = await start(folder);
    let before = await totalsOf(server);
    const finals = new Map<string, Totals>();
    // The number of data events after which it comes: at once, among the first charges, and in full swing.
    for (const killAfter of [0, 1, 10, 300, 23, 150, 70, 500]) {
      const load = await work(server);
      await load.seen(killAfter);
      server.kill("SIGKILL");
      await load.stop();
      expect(await server.ended).toEqual({ code: null, signal: "SIGKILL" });
      expectReadable(folder);

      server = await start(folder);
      const after = await totalsOf(server);
      expect(await exportedBy(server), `exported after ${killAfter}`).toEqual(after);
      for (const user of users) {
        const chats = load.chats.filter((chat) => chat.user === user);
        expect(chats.filter(({ status }) => status !== 0 && status !== 200)).toEqual([]);
        for (const chat of chats) if (chat.usage !== null) finals.set(user, totalOf(chat.usage));
        const grown = difference(after.get(user), before.get(user));
        expect(explain(chats, grown, firstCharge(user), finals.get(user)), `${user} after ${killAfter}`).toBe("");
      }
      before = after;
    }
    expect([...finals.keys()].sort()).toEqual(users);
    expect(await usageBy(server)).toEqual(before);
    // Each request is worked out again, beside the server.
    const bill = await runCli(runBillCli, ["verify"], folder);
    expect(bill).toMatchObject({ code: 0, err: "", out: expect.stringMatching(/nothing differs$/) });
  }, 120_000);

  it("in the middle of a shutdown keeps every total", async () => {
    const folder = await prepare();
    let server = await start(folder);
    const load = await work(server);
    await load.seen(100);
    await load.stop();
    expect(load.chats.filter(({ done }) => !done)).toEqual([]);
    const before = await totalsOf(server);
    server.kill("SIGTERM");
    await server.logged("stopping");
    server.kill("SIGKILL");
    await server.ended;
    expectReadable(folder);
    server = await start(folder);
    expect(await totalsOf(server)).toEqual(before);
  });

  it("is survived by the instance that holds the folder when a second one is refused", async () => {
    const folder = await prepare();
    const first = await start(folder);
    const second = spawnServer({ code, folder, env: { DEEPSEEK_API_KEY: "sk-test" } });
    const { code: exitCode } = await second.ended;
    expect(exitCode).toBe(1);
    expect(second.lines.join("\n")).toMatch(
      new RegExp(`cannot start:\n.*/users/\\.lock is held by process ${first.pid} on .*: only one instance may use`),
    );
    const load = await work(first);
    await load.seen(50);
    await load.stop();
    expect(load.chats.filter(({ done }) => !done)).toEqual([]);
  });
});

/**
 * Says what of the growth of a user's totals the chats can't explain; "" where all is well. Whatever was done is charged
 * in full. Of the rest, those that saw an event are charged once, those that saw none at most once: each the first charge
 * or, where the settle came before the kill, the final one.
 */
function explain(chats: readonly SeenChat[], grown: Totals, first: Totals, final: Totals = first): string {
  const done = chats.filter((chat) => chat.done).length;
  const acknowledged = chats.filter(({ events }) => events > 0).length;
  const [requests, tokens] = grown;
  if (requests < acknowledged) return `${acknowledged} acknowledged, ${requests} recovered`;
  if (requests > chats.length) return `${chats.length} begun, ${requests} recovered`;
  for (let settled = done; settled <= requests; settled++) {
    const expected = first.map((each, i) => each * (requests - settled) + (final[i] ?? 0) * settled);
    if (expected.every((amount, i) => amount === grown[i])) return "";
  }
  return `${tokens} tokens of ${requests} requests, ${done} done: not a sum of ${first[1]} and ${final[1]}`;
}

/** As at the first event: the prompt at four bytes a token, at one yuan a million. */
function firstCharge(user: string): Totals {
  const tokens = Math.ceil(Buffer.byteLength(bodies[user] ?? "") / 4);
  return [1, tokens, tokens * 1000];
}

function totalOf({ prompt_tokens: input, completion_tokens: output }: NonNullable<SeenChat["usage"]>): Totals {
  return [1, input + output, input * 1000 + output * 4000];
}

async function totalsOf(server: ServerProcess): Promise<Map<string, Totals>> {
  const totals = new Map<string, Totals>();
  for (const user of users) {
    const [requests, tokens, cost] = await quotaOf(server, await login(server, user));
    totals.set(user, [requests?.used ?? NaN, tokens?.used ?? NaN, Math.round((cost?.used ?? NaN) * 1e9)]);
  }
  return totals;
}

/** What all exported rows add up to, of each user. */
async function exportedBy(server: ServerProcess): Promise<Map<string, Totals>> {
  const lines = (await (await asBoss(server, "/admin/usage/export")).text()).trim().split("\n");
  expect(JSON.parse(lines.pop() ?? "")).toMatchObject({ end: true, rows: lines.length, complete: true });
  const rows = lines.map((line) => JSON.parse(line) as ExportedLine);
  return totalsBy(rows.map(({ user, requests, tokens, cost_nano: cost }) => [user, [requests, tokens, cost]]));
}

interface ExportedLine {
  readonly user: string;
  readonly requests: number;
  readonly tokens: number;
  readonly cost_nano: number;
}

/** The usage history of each user. */
async function usageBy(server: ServerProcess): Promise<Map<string, Totals>> {
  const { rows } = (await (await asBoss(server, "/admin/usage?by=user")).json()) as {
    rows: { user: string; requests: number; tokens: number; costs: { cost: string }[] }[];
  };
  return totalsBy(
    rows.map(({ user, requests, tokens, costs }) => [user, [requests, tokens, parseNano(costs[0]?.cost ?? "0")]]),
  );
}

function totalsBy(rows: readonly (readonly [user: string, totals: Totals])[]): Map<string, Totals> {
  const sums = new Map<string, Totals>(users.map((user) => [user, [0, 0, 0]]));
  for (const [user, [requests, tokens, cost]] of rows) {
    const sum = sums.get(user) ?? [0, 0, 0];
    sums.set(user, [sum[0] + requests, sum[1] + tokens, sum[2] + cost]);
  }
  return sums;
}

async function asBoss(server: ServerProcess, path: string): Promise<Response> {
  return fetch(`${server.url}${path}`, { headers: bearer(await login(server, "boss")) });
}

function difference(after: Totals = [0, 0, 0], before: Totals = [0, 0, 0]): Totals {
  return [after[0] - before[0], after[1] - before[1], after[2] - before[2]];
}

/** Whatever was being written: each file is there in its old or its new form. */
function expectReadable(folder: string): void {
  for (const name of readdirSync(join(folder, "users")).filter((file) => /^[^.].*\.toml$/.test(file))) {
    expect(Object.keys(parse(readFileSync(join(folder, "users", name), "utf8"))), name).not.toEqual([]);
  }
}

async function login(server: ServerProcess, username: string): Promise<string> {
  const answer = await post(`${server.url}/auth/login`, { username, password: alicePassword });
  return ((await answer.json()) as { token: string }).token;
}

function body(fields: object): string {
  return JSON.stringify({
    ...fields,
    messages: [{ role: "user", content: "Tell me of crashes and of what survives." }],
  });
}
