// Measures the panel in Chromium: its first paint here and on a slow phone, how late an event is shown, and how long the
// server takes for what each page asks for.
//
//   npm run bench:panel                 10,000 users, 1,000,000 requests and lines of a user's log; some ten minutes
//   npm run bench:panel -- --smoke      a minute: proves that it runs, the figures mean little
//   npm run bench:panel -- --only paint (or live, or pages)
//
// Fails only if something failed; a slow machine is no failure.
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { writeLog, writeUsers } from "./admin-files.mjs";
import { measureLoad, openContext, slowDown, startBrowser, visit } from "./panel-browser.mjs";
import { groupSections, models, providers, writePast } from "./panel-files.mjs";
import { createRunning, startProxy, startUpstream } from "./processes.mjs";
import { figure, table } from "./table.mjs";

const { values: options } = parseArgs({ options: { smoke: { type: "boolean" }, only: { type: "string" } } });
const size = options.smoke
  ? { users: 300, requests: 20_000, logBytes: 8 << 20, changes: 1000, loads: 3, events: 5, rounds: 10 }
  : { users: 10_000, requests: 1_000_000, logBytes: 430 << 20, changes: 100_000, loads: 15, events: 30, rounds: 100 };
const budgets = { hereMs: 300, phoneMs: 1200, eventMs: 1000, answerMs: 200, loopMs: 50 };

const dir = mkdtempSync(join(tmpdir(), "proxy-bench-panel-"));
const { keep, stopAll } = createRunning();
let browser;

try {
  progress(`writing ${size.users} users and ${size.requests} requests`);
  mkdirSync(join(dir, "users"), { recursive: true });
  const password = await writeUsers(join(dir, "users"), size.users);
  await writeLog(join(dir, "logs", "users", "user-0"), size.logBytes);
  await writePast({ dir, ...size });
  const upstream = await keep(startUpstream(dir));
  progress("starting");
  const proxy = await keep(
    startProxy(dir, upstream.url, "dist", { sections: groupSections(size.users), waitMs: 600_000 }),
  );
  browser = await startBrowser();
  const operator = { user: "boss", password };

  print(`${cpus()[0]?.model ?? "unknown CPU"}, ${availableParallelism()} cores, Node ${process.version}`);
  const [users, requests] = [size.users, size.requests].map((count) => count.toLocaleString("en"));
  print(`${users} users, ${requests} requests, one user's log of ${size.logBytes >> 20} MB\n`);
  if (isAsked("paint")) await measurePaint(proxy.url, operator);
  if (isAsked("live")) await measureLive(proxy, operator);
  if (isAsked("pages")) await measurePages(proxy, operator);
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await browser?.close();
  await stopAll();
  rmSync(dir, { recursive: true, force: true });
}

function isAsked(name) {
  return options.only === undefined || options.only === name;
}

/** Each load is in a browser with an empty cache, but for those that are named warm. */
async function measurePaint(url, operator) {
  const rows = [];
  for (const isPhone of [false, true]) {
    for (const [name, path, login] of [
      ["login page", "/panel/", {}],
      ["overview", "/panel/overview", operator],
      ["a user's home", "/panel/home", { ...operator, user: "user-1" }],
    ]) {
      progress(`first paint: ${name}`);
      const loads = { cold: [], warm: [] };
      for (let round = 0; round < size.loads; round++) {
        const context = await openContext(browser, url, { ...login, isPhone });
        for (const kind of ["cold", "warm"]) {
          const page = await context.newPage();
          if (isPhone) await slowDown(page);
          loads[kind].push(await measureLoad(page, url + path));
          await page.close();
        }
        await context.close();
      }
      const budget = isPhone ? budgets.phoneMs : budgets.hereMs;
      for (const [kind, all] of Object.entries(loads)) {
        const [paint, heading, kilobytes] = ["paintMs", "headingMs", "kilobytes"].map((key) =>
          middleOf(all.map((one) => one[key])),
        );
        rows.push([
          `${isPhone ? "slow phone" : "here"}: ${name}${kind === "warm" ? ", loaded before" : ""}`,
          figure(paint),
          figure(heading),
          figure(kilobytes),
          `${(paint / budget).toFixed(2)}x of ${budget}`,
        ]);
      }
    }
  }
  print(`first paint, medians of ${size.loads} loads (${loadNow()}):\n`);
  print(table(["", "first paint, ms", "heading, ms", "KB", "to its budget"], rows));
}

/** From the last byte of a chat's answer to what the page shows of it. */
async function measureLive({ url, token }, operator) {
  const context = await openContext(browser, url, operator);
  const rows = [];
  for (const [name, path, shown] of [
    ["events, a row", "/panel/events?follow=1&type=chat.finished", "main tbody"],
    ["requests, the button of new ones", "/panel/requests", "main"],
    ["overview, the figures of the last hour", "/panel/overview", "main .tiles"],
  ]) {
    progress(`live: ${name}`);
    const page = await context.newPage();
    await page.goto(url + path);
    await page.getByText("live", { exact: true }).waitFor();
    // The first event fills a list, or lets it appear.
    await chat(url, token);
    await page.locator(shown).waitFor();
    const times = [];
    for (let round = 0; round < size.events; round++) {
      await page.waitForTimeout(300);
      const seen = page.evaluate(
        (selector) =>
          new Promise((resolve) => {
            const before = document.querySelector(selector).innerText;
            const watch = new MutationObserver(() => {
              if (document.querySelector(selector).innerText === before) return;
              watch.disconnect();
              resolve(performance.timeOrigin + performance.now());
            });
            watch.observe(document.querySelector(selector), { childList: true, subtree: true, characterData: true });
          }),
        shown,
      );
      await page.evaluate(() => 0);
      const endedAt = await chat(url, token);
      times.push((await seen) - endedAt);
    }
    await page.close();
    times.sort((a, b) => a - b);
    const worst = times.at(-1);
    rows.push([name, figure(middleOf(times)), figure(worst), `${(worst / budgets.eventMs).toFixed(2)}x`]);
  }
  await context.close();
  print(`\nan event until it is shown, ${size.events} chats each (${loadNow()}):\n`);
  print(table(["", "median, ms", "worst, ms", `worst to ${budgets.eventMs} ms`], rows));
}

/** The time at which its answer ended, in ms since the epoch. */
async function chat(url, token) {
  const answer = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify({ model: "sim-fast", messages: [{ role: "user", content: "Hello" }] }),
  });
  if (!answer.ok) throw new Error(`a chat failed: ${answer.status} ${await answer.text()}`);
  await answer.text();
  return performance.timeOrigin + performance.now();
}

/** Walks all pages, then asks again and again for each answer that they asked for. */
async function measurePages(proxy, operator) {
  const context = await openContext(browser, proxy.url, operator);
  const page = await context.newPage();
  const askedBy = new Map();
  let current = "";
  page.on("request", (request) => {
    const { pathname, search } = new URL(request.url());
    if (request.method() !== "GET" || /^\/panel\/(?!api)/.test(pathname) || pathname === "/admin/events") return;
    const pages = askedBy.get(pathname + search) ?? new Set();
    askedBy.set(pathname + search, pages.add(current));
  });
  await page.goto(`${proxy.url}/panel/`);
  await page.locator("main h1").waitFor();
  const visited = pagesToVisit();
  for (const path of visited) {
    current = path;
    progress(`page ${path}`);
    await visit(page, path);
    const errors = await page.locator("main .error").allInnerTexts();
    if (errors.length > 0) throw new Error(`${path}: ${errors.join("; ")}`);
  }
  const [{ name, value }] = await context.cookies();
  const headers = { cookie: `${name}=${value}`, "sec-fetch-site": "same-origin" };
  await context.close();

  const rows = [];
  for (const [address, pages] of askedBy) {
    progress(address);
    const times = [];
    let bytes = 0;
    await proxy.ask("loop");
    const endAt = performance.now() + 20_000;
    for (let round = 0; round < size.rounds && (round < 3 || performance.now() < endAt); round++) {
      const startedAt = performance.now();
      const answer = await fetch(proxy.url + address, { headers });
      const text = await answer.text();
      times.push(performance.now() - startedAt);
      if (!answer.ok) throw new Error(`${address}: ${answer.status} ${text}`);
      bytes = text.length;
    }
    const { maxMs } = await proxy.ask("loop");
    const first = times[0];
    times.sort((a, b) => a - b);
    const [p50, p99] = [times[times.length >> 1], times[Math.floor(times.length * 0.99)]];
    rows.push({ address, page: [...pages][0], first, p50, p99, maxMs, kilobytes: bytes / 1024 });
  }
  rows.sort((a, b) => b.p99 - a.p99);
  const isOver = ({ first, p99, maxMs }) => Math.max(first, p99) > budgets.answerMs || maxMs > budgets.loopMs;
  const over = rows.filter(isOver);
  print(`\nwhat ${visited.length} pages ask for, ${size.rounds} times each, the slowest first (${loadNow()}):\n`);
  const head = ["", "first, ms", "p50, ms", "p99, ms", "loop stood, ms", "KB"];
  const shown = rows.map(({ address, first, p50, p99, maxMs, kilobytes }) => [
    decodeURIComponent(address),
    ...[first, p50, p99, maxMs, kilobytes].map(figure),
  ]);
  print(table(head, shown));
  print(
    `\n${rows.length} answers, ${over.length} of them with more than ${budgets.answerMs} ms, or ${budgets.loopMs} ms of the event loop`,
  );
}

/** Every page, every tab, and every filter that makes the server read something else. */
function pagesToVisit() {
  const own = ["home", "chat", "keys", "usage", "setup", "redeem", "account"];
  const lists = ["overview", "requests", "users", "groups", "groups/team-1", "providers", "reports", "limits"];
  const others = ["prices", "codes", "events", "config", "audit", "nodes"];
  const tabs = ["quota", "settings", "keys", "sessions", "spend", "behaviour"].map((tab) => `users/user-0?tab=${tab}`);
  const found = ["users?search=user-77", "users?search=nobody", "audit?user=user-77", "audit?action=user.created"];
  const asked = [
    "user=user-0",
    "user=user-9999",
    `model=${models[4]}`,
    `provider=${providers[2]}`,
    "code=upstream_failed",
    "group=team-3",
    "request_id=nothing-has-this-id",
    "key_id=key77",
  ].map((query) => `requests?${query}`);
  const day = (back) => new Date(Date.now() - back * 86_400_000).toISOString().slice(0, 10);
  const groupings = ["both", "day", "month", "hour", "model", "user", "key", "all", "group", "provider"];
  const reports = [6, 28].flatMap((back) => [
    ...groupings.map((by) => `reports?from=${day(back)}&to=${day(0)}&by=${by}`),
    ...["group", "provider", "user", "model"].map((by) => `reports?from=${day(back)}&to=${day(0)}&by=${by}&step=hour`),
    ...["hour", "user", "group", "provider"].map((by) => `reports?from=${day(back)}&to=${day(0)}&by=${by}&user=user-0`),
  ]);
  return [...own, ...lists, ...others, ...tabs, ...found, ...asked, ...reports].map((path) => `/${path}`);
}

function middleOf(values) {
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}

function loadNow() {
  return `load average ${loadavg()[0].toFixed(1)}`;
}

function progress(text) {
  process.stderr.write(`${text}\n`);
}

function print(text) {
  process.stdout.write(`${text}\n`);
}
