// Measures what administrators and those who guess passwords cost: the list of users and the pages of a long log, chats
// while logins flood in, and whether the time of a refusal tells who has an account.
//
//   npm run bench:admin                 10,000 users, a log of 1 GB; about a minute
//   npm run bench:admin -- --smoke      a few seconds: proves that it runs, the figures mean little
//
// Fails only if a request failed; a slow machine is no failure.
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { writeLog, writeUsers } from "./admin-files.mjs";
import { createRunning, startLoad, startProxy, startUpstream } from "./processes.mjs";
import { figure, table } from "./table.mjs";

const { values: options } = parseArgs({ options: { smoke: { type: "boolean" } } });
const size = options.smoke
  ? { users: 300, logBytes: 8 << 20, rounds: 20, ms: 1500 }
  : { users: 10_000, logBytes: 1 << 30, rounds: 300, ms: 8000 };
/** What an answer may take, in ms. */
const budgetMs = 50;
const logins = 200;
const tries = 200;
const streams = 50;
const chunksPerSecond = 20;

const dir = mkdtempSync(join(tmpdir(), "proxy-bench-admin-"));
const { keep, stopAll } = createRunning();

try {
  mkdirSync(join(dir, "users"), { recursive: true });
  const password = await writeUsers(join(dir, "users"), size.users);
  const log = await writeLog(join(dir, "logs", "users", "user-0"), size.logBytes);
  const upstream = await keep(startUpstream(dir));
  const load = await keep(startLoad(dir));
  const proxy = await keep(startProxy(dir, upstream.url));
  const { token } = await logIn(proxy.url, "boss", password);

  const pages = await measurePages(proxy, token, log);
  const [unknown, wrong] = await measureRefusals(proxy.url);
  const chats = await measureFlood(proxy, load, password);

  print(`${cpus()[0]?.model ?? "unknown CPU"}, ${availableParallelism()} cores, Node ${process.version}`);
  const megabytes = Math.round(size.logBytes / (1 << 20));
  print(`${size.users.toLocaleString("en")} users, a log of ${megabytes} MB, ${size.rounds} rounds\n`);
  const rows = pages.map(([name, p50, p99, cpuMs]) => {
    return [name, figure(p50), figure(p99), `${(p99 / budgetMs).toFixed(2)}x`, figure(cpuMs)];
  });
  print(table(["", "p50, ms", "p99, ms", `p99 to ${budgetMs} ms`, "CPU, ms"], rows));
  print(`\nchats beside ${streams} streams, alone and while ${logins} logins at once come again and again:\n`);
  print(table(["", "alone", "flooded", "difference", "ratio"], chats));
  print(`\nrefused logins, ${tries} of each in turn, medians:\n`);
  const ratio = `${(unknown / wrong).toFixed(3)}x`;
  print(table(["", "unknown user", "wrong password", "ratio"], [["ms", figure(unknown), figure(wrong), ratio]]));
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await stopAll();
  rmSync(dir, { recursive: true, force: true });
}

/** Each answer is asked for over and over, one after the other. CPU time holds on a busy machine as well. */
async function measurePages({ url, ask }, token, { middle, rare }) {
  const headers = { authorization: `Bearer ${token}` };
  const get = async (path) => {
    const answer = await fetch(url + path, { headers });
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    return path.startsWith("/admin") ? answer.json() : answer.text();
  };
  const behaviour = "/admin/users/user-0/behaviour?limit=50";
  const { next_cursor: cursor } = await get(behaviour);
  const { next_cursor: second } = await get("/admin/users?limit=50");
  const cases = [
    ["users: the first 50", "/admin/users?limit=50"],
    ["users: the next 50", `/admin/users?limit=50&cursor=${second}`],
    ["users: search", "/admin/users?limit=50&search=user-77"],
    ["behaviour: the newest 50", behaviour],
    ["behaviour: the next 50", `${behaviour}&cursor=${cursor}`],
    ["behaviour: up to a moment in the middle", `${behaviour}&to=${middle}`],
    ["metrics: a scrape", "/metrics"],
    ["behaviour: of a rare type, where the bound on a page ends it", `${behaviour}&type=${rare}`],
  ];
  const rows = [];
  for (const [name, path] of cases) {
    progress(name);
    const times = [];
    const { cpuUs } = await ask("usage");
    for (let round = 0; round < size.rounds; round++) {
      const startedAt = performance.now();
      await get(path);
      times.push(performance.now() - startedAt);
    }
    times.sort((a, b) => a - b);
    const cpuMs = ((await ask("usage")).cpuUs - cpuUs) / 1000 / size.rounds;
    rows.push([name, times[times.length >> 1], times[Math.floor(times.length * 0.99)], cpuMs]);
  }
  return rows;
}

/** Medians in ms of what a login takes with a name that nobody has, and with a wrong password. */
async function measureRefusals(url) {
  progress("refused logins");
  const times = { nobody: [], user: [] };
  for (let index = 0; index < tries; index++) {
    for (const kind of ["nobody", "user"]) {
      const startedAt = performance.now();
      const { status } = await logIn(url, `${kind}-${index}`, "not the password of anybody");
      if (status !== 401) throw new Error(`a login was answered with ${status}`);
      times[kind].push(performance.now() - startedAt);
    }
  }
  return Object.values(times).map((all) => all.sort((a, b) => a - b)[tries >> 1]);
}

/** Short chats one after the other beside running streams, and the same while logins come, 200 at once, without end. */
async function measureFlood(proxy, load, password) {
  const messages = [{ role: "user", content: "A prompt of about the size that chats begin with. ".repeat(8) }];
  const to = { url: proxy.url, token: proxy.token };
  const checked = async (order) => {
    const result = await load.ask({ ...to, ...order });
    if (result.failure !== undefined) throw new Error(`a chat failed: ${result.failure}`);
    return result;
  };
  const body = { model: "sim-fast", stream: true, messages };
  const chat = (ms) => checked({ order: "closed", mustContain: "data: [DONE]", clients: 1, body, ms });
  const max_tokens = Math.ceil(30 + (3 * size.ms) / 1000) * chunksPerSecond;
  const stream = { model: `sim-paced:${chunksPerSecond}`, stream: true, max_tokens, messages };
  await checked({ order: "open", body: stream, count: streams });
  await chat(size.ms / 4);
  progress("chats alone");
  const alone = await chat(size.ms);
  progress("chats beside a flood of logins");
  const flood = floodLogins(proxy.url, password);
  const flooded = await chat(size.ms);
  const { accepted, refused } = await flood.stop();
  // All streams must still be running: none may have ended, well or not.
  await checked({ order: "count" });
  await load.ask({ order: "leave" });
  progress(`${accepted} logins were let in, ${refused} had to wait`);
  const row = (name, of) => {
    const [before, after] = [of(alone), of(flooded)];
    const difference = (after < before ? "" : "+") + figure(after - before);
    return [name, figure(before), figure(after), difference, `${(after / before).toFixed(2)}x`];
  };
  return [
    row("first token p50, ms", ({ p50Ms }) => p50Ms),
    row("first token p99, ms", ({ p99Ms }) => p99Ms),
    row("chats per second", ({ requests, seconds }) => requests / seconds),
  ];
}

function floodLogins(url, password) {
  let stopped = false;
  const counts = { accepted: 0, refused: 0 };
  const one = async (user) => {
    const { status } = await logIn(url, user, password);
    if (status === 200) counts.accepted++;
    else if (status === 429) counts.refused++;
    else throw new Error(`a login was answered with ${status}`);
  };
  const over = (async () => {
    for (let round = 0; !stopped; round++) {
      const names = Array.from({ length: logins }, (_, index) => `user-${(round * logins + index) % size.users}`);
      await Promise.all(names.map(one));
    }
  })();
  return {
    async stop() {
      stopped = true;
      await over;
      return counts;
    },
  };
}

async function logIn(url, username, password) {
  const answer = await fetch(`${url}/auth/login`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ username, password }),
  });
  const { token } = await answer.json();
  return { status: answer.status, token };
}

function progress(text) {
  process.stderr.write(`${text}\n`);
}

function print(text) {
  process.stdout.write(`${text}\n`);
}
