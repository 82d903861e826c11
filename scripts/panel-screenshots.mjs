// Renews the pictures of the panel in docs/panel: node scripts/panel-screenshots.mjs, after `npm run build`. It starts a
// proxy over a made-up provider, lets made-up people use it for two weeks on a clock of its own, and takes the pictures in
// Chromium. With a folder as argument it writes every page of both roles there instead, as PNG, for looking at them:
// node scripts/panel-screenshots.mjs /tmp/pages [zh-CN] [dark]
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { startBrowser, visit } from "../bench/panel-browser.mjs";
import { loadConfig } from "../dist/config/load.js";
import { createProcessTable } from "../dist/lib/files/lock-owner.js";
import { createLogger } from "../dist/events/logger.js";
import { buildServer } from "../dist/server.js";
import { createServices } from "../dist/services.js";

const days = 14;
const [minuteMs, dayMs] = [60_000, 86_400_000];
const maxBytes = 150_000;
const password = "correct horse battery";
const people = ["alice", "bao", "chen", "dana", "emil", "fatima", "goran", "hana", "ines", "jun", "kofi", "lena"];
const models = [
  "deepseek-flash",
  "deepseek-flash",
  "deepseek-flash",
  "deepseek-v4-pro",
  "deepseek-v4-pro",
  "glm-large",
];
const desktop = { width: 1280, height: 800 };
const phone = { width: 390, height: 844 };

const price = (names, hit, miss, output) =>
  `[[models.prices]]\nmodels = ${JSON.stringify(names)}\ncurrency = "CNY"\ncache_hit = ${hit}\ncache_miss = ${miss}\noutput = ${output}\n`;
const config = (url) => `
[server]
port = 0
trust_proxy = ["127.0.0.1"]
[logs]
flush_ms = 10
[panel]
title = "Our models"
[health]
probe_seconds = 0
[breaker]
window_seconds = 300
open_seconds = 300
[[providers]]
name = "deepseek"
kind = "deepseek"
base_url = "${url}/deepseek"
api_key_env = "KEY"
models = ["deepseek-*"]
[[providers]]
name = "second"
kind = "openai"
base_url = "${url}/second"
api_key_env = "KEY"
models = ["deepseek-flash"]
priority = 1
[[providers]]
name = "zhipu"
kind = "zhipu"
base_url = "${url}/zhipu"
api_key_env = "KEY"
models = ["glm-*"]
${price(["deepseek-flash"], 0.02, 1, 4)}${price(["deepseek-v4-pro"], 0.15, 4.5, 13.5)}${price(["glm-large"], 0.4, 2, 8)}
[quota.tiers]
basic = { limits = [{ metric = "requests", per = "month", max = 500 }, { metric = "cost", per = "month", max = 20 }] }
pro = { limits = [{ metric = "requests", per = "month", max = 2000 }, { metric = "cost", per = "month", max = 80 }] }
`;

const question = "Why is the sky blue, and red in the evening?";
const answer = {
  reasoning:
    "The question has two parts: the colour by day, and at sunset. Both come from Rayleigh scattering, which grows with the inverse fourth power of the wavelength. By day short wavelengths are scattered into the eye from all directions. At sunset the path through the air is some 40 times longer, so that most of the blue is gone.",
  content:
    "Air scatters short wavelengths far more than long ones: blue light about four times as much as red. By day some of that scattered blue reaches you from every direction, so the sky looks blue.\n\nIn the evening sunlight crosses a much longer stretch of air. Most of the blue has been scattered out of it on the way, and what is left is orange and red.",
};

/** The same numbers in each run. */
let state = 7;
function random() {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  return state / 2 ** 32;
}
const pick = (list, power = 1) => list[Math.floor(list.length * random() ** power)];
const between = (low, high) => Math.round(low + (high - low) * random());

/** Ms that the proxy's clock is behind. A response takes none of our time: the clock goes on instead. */
let behindMs = days * dayMs;
const clock = { now: () => Date.now() - behindMs, monotonic: () => performance.now() + days * dayMs - behindMs };
const pass = (ms) => {
  behindMs = Math.max(0, behindMs - ms);
};

/** What the provider "deepseek" does with deepseek-flash: for a while it is down, and "second" answers. */
let isDown = false;

/** Called with the first bytes of an answer; one request runs at a time. */
let onFirstPiece = () => {};

const upstream = createServer(async (request, response) => {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  if (request.method !== "POST") return void response.writeHead(404).end("{}");
  const { model, stream, messages = [] } = JSON.parse(Buffer.concat(pieces).toString());
  if (isDown && request.url.startsWith("/deepseek") && model === "deepseek-flash") {
    const error = { message: "Service is too busy", type: "service_unavailable_error", code: "busy" };
    return void response.writeHead(503, { "content-type": "application/json" }).end(JSON.stringify({ error }));
  }
  const isAsked = messages.at(-1)?.content === question;
  const { reasoning, content } = isAsked ? answer : { reasoning: "", content: "Certainly." };
  const [input, output] = isAsked ? [24, 168] : [between(200, 6000), between(40, 1400)];
  const cached = isAsked ? 0 : Math.floor(input * random() * 0.9);
  const usage = {
    prompt_tokens: input,
    completion_tokens: output,
    total_tokens: input + output,
    prompt_cache_hit_tokens: cached,
    prompt_cache_miss_tokens: input - cached,
    prompt_tokens_details: { cached_tokens: cached },
    completion_tokens_details: { reasoning_tokens: isAsked ? 76 : 0 },
  };
  const base = { id: crypto.randomUUID(), created: Math.floor(clock.now() / 1000), model };
  pass(between(180, model === "deepseek-flash" ? 600 : 1500));
  if (stream !== true) {
    const choices = [{ index: 0, message: { role: "assistant", content }, finish_reason: "stop" }];
    const body = { ...base, object: "chat.completion", choices, usage };
    return void response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(body));
  }
  response.writeHead(200, { "content-type": "text/event-stream" });
  const send = (delta, finish = null, more = {}) => {
    const choices = [{ index: 0, delta, finish_reason: finish }];
    response.write(`data: ${JSON.stringify({ ...base, object: "chat.completion.chunk", choices, ...more })}\n\n`);
  };
  const say = (field, text) => send({ role: "assistant", content: null, [field]: text });
  if (isAsked) {
    // The browser has a clock of its own.
    for (const [field, text] of Object.entries({ reasoning_content: reasoning, content })) {
      for (const word of text.split(" ")) {
        say(field, `${word} `);
        await sleep(12);
      }
    }
  } else {
    const passedOn = new Promise((resolve) => (onFirstPiece = resolve));
    say("content", content);
    // The clock goes on once the proxy has taken note of the first event and passed it on.
    await passedOn;
    pass(output * between(8, 16));
  }
  send({}, "stop", { usage });
  response.end("data: [DONE]\n\n");
});

const folder = mkdtempSync(join(tmpdir(), "panel-screenshots-"));
await new Promise((resolve) => upstream.listen(0, "127.0.0.1", resolve));
mkdirSync(join(folder, "users"));
const operatorFile = `username = "operator"\npassword = "${password}"\nquota_tier = "pro"\nroles = ["admin"]\n`;
writeFileSync(join(folder, "users", "operator.toml"), operatorFile);
writeFileSync(join(folder, "config.toml"), config(`http://127.0.0.1:${upstream.address().port}`));
const services = await createServices({
  loaded: loadConfig(join(folder, "config.toml"), {}, folder),
  env: { KEY: "made-up" },
  log: createLogger({ level: "error", destination: { write: (line) => process.stderr.write(line) } }),
  processes: createProcessTable({ pid: process.pid, host: "screenshots", exists: () => true }),
  onLockLost: () => process.exit(1),
  readLoad: () => ({ loopDelayMs: 0, heapShare: 0, descriptorShare: 0 }),
  clock,
});
const server = await buildServer(services);
const url = await server.listen();
let browser;
try {
  await usePast();
  browser = await startBrowser();
  const [target, ...how] = process.argv.slice(2);
  if (target === undefined) await takeForDocs(join(import.meta.dirname, "..", "docs", "panel"));
  else await takeAll(target, { locale: how.includes("zh-CN") ? "zh-CN" : "en-GB", isDark: how.includes("dark") });
} finally {
  await browser?.close();
  await server.stop(0);
  await services.close();
  upstream.close();
  upstream.closeAllConnections();
  rmSync(folder, { recursive: true, force: true });
}

/** Two weeks with some requests an hour, more of them by day, and a busy last hour. */
async function usePast() {
  const end = Date.now();
  const keys = new Map();
  // A token lives for hours only.
  const administer = async (path, body) => post(path, body, await login("operator"));
  const groups = { research: ["alice", "bao", "chen", "hana", "jun"], support: ["dana", "emil", "kofi"] };
  for (const [index, username] of people.entries()) {
    const tier = index % 3 === 0 ? "pro" : "basic";
    await administer("/admin/users", { username, password, quota_tier: tier, roles: ["user"] });
    const token = await login(username);
    for (const name of username === "alice" ? ["laptop", "Open WebUI", "Claude Code"] : ["laptop"]) {
      const { key } = await post("/auth/keys", { name }, token);
      keys.set(username, [...(keys.get(username) ?? []), key]);
    }
    pass(between(5, 40) * minuteMs);
  }
  for (const [name, members] of Object.entries(groups)) {
    const limits = [{ metric: "cost", per: "month", max: name === "research" ? 200 : 50 }];
    await administer("/admin/groups", { name, members, owners: members.slice(0, 1), limits });
  }
  const chat = (name, model = pick(models)) => {
    const body = { model, stream: true, messages: [{ role: "user", content: "Hello" }] };
    return post("/v1/chat/completions", body, pick(keys.get(name)), `203.0.113.${people.indexOf(name) + 10}`);
  };
  while (clock.now() < end - 110 * minuteMs) {
    const hour = new Date(clock.now()).getUTCHours();
    await chat(pick(people, 2));
    pass(between(1, hour < 12 ? 10 : 40) * minuteMs);
  }
  const codes = { name: "Workshop", count: 20, uses: 1, amount: "5", metric: "cost", per: "month" };
  const { codes: made } = await administer("/admin/codes", codes);
  await administer("/admin/users/emil/quota/grant", {
    metric: "cost",
    per: "month",
    amount: "10",
    reason: "a workshop",
  });
  await post("/codes/redeem", { code: made[0] }, await login("fatima"));
  for (let minute = 60; minute >= 1; minute--) {
    pass(Math.max(0, end - minute * minuteMs - clock.now()));
    isDown = (minute > 22 && minute < 29) || minute < 4;
    for (let left = between(1, 5); left > 0; left--) await chat(pick(people, 2));

    if (minute % 13 === 0) await chat(pick(people), "gpt-unknown");
    if (minute < 4) for (const name of ["alice", "bao", "dana"]) await chat(name, "deepseek-flash");
  }
  behindMs = 0;
}

async function login(username) {
  return (await post("/auth/login", { username, password })).token;
}

/** Posts JSON; a chat may be refused, anything else may not. */
async function post(path, body, token = "", address = "127.0.0.1") {
  const response = await fetch(url + path, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${token}`, "x-forwarded-for": address },
    body: JSON.stringify(body),
  });
  let text = "";
  for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
    onFirstPiece();
    text += piece;
  }
  if (!response.ok && !path.startsWith("/v1/")) throw new Error(`${path}: ${response.status} ${text}`);
  return response.headers.get("content-type")?.includes("json") === true ? JSON.parse(text) : text;
}

async function open({ user, locale = "en-GB", isDark = false, viewport = desktop }) {
  const colorScheme = isDark ? "dark" : "light";
  const context = await browser.newContext({ locale, viewport, colorScheme, reducedMotion: "reduce" });
  const page = await context.newPage();
  if (user !== undefined) {
    const headers = { "content-type": "application/json", origin: url };
    await context.request.post(`${url}/panel/api/login`, { data: { username: user, password }, headers });
  }
  await page.goto(`${url}/panel/`);
  await page.locator("h1").waitFor();
  return page;
}

async function ask(page) {
  await visit(page, "/chat?model=deepseek-v4-pro");
  await page.fill("textarea", question);
  await page.keyboard.press("Enter");
  await page.locator(".turn.assistant[aria-busy='false']").waitFor();
  await page.locator(".turn.assistant").getByText("CNY").waitFor();
}

async function takeForDocs(to) {
  const save = async (page, name) => {
    const path = join(to, `${name}.png`);
    await page.mouse.move(0, 0);
    await page.screenshot({ path });
    const { size } = statSync(path);
    if (size > maxBytes) throw new Error(`${path} has ${size} bytes; at most ${maxBytes} are fine`);
    console.log(`${path}: ${Math.ceil(size / 1024)} KB`);
  };
  const operator = await open({ user: "operator" });
  for (const [name, height] of Object.entries({ overview: 800, requests: 600, reports: 800 })) {
    await operator.setViewportSize({ ...desktop, height });
    await visit(operator, `/${name}`);
    await save(operator, name);
  }
  const user = await open({ user: "alice" });
  await visit(user, "/home");
  await save(user, "home");
  await user.setViewportSize({ ...desktop, height: 640 });
  await ask(user);
  await save(user, "chat");
  const small = await open({ user: "alice", viewport: phone, isDark: true });
  await visit(small, "/home");
  await save(small, "phone");
}

async function takeAll(to, how) {
  mkdirSync(to, { recursive: true });
  const mine = ["home", "chat", "keys", "usage", "setup", "redeem", "account"];
  const operators = [
    "overview",
    "requests",
    "users",
    "groups",
    "groups/research",
    "providers",
    "reports",
    "limits",
    "prices",
  ];
  const rare = ["codes", "events", "config", "audit", "nodes"];
  const tabs = ["quota", "settings", "keys", "sessions", "spend", "behaviour"].map((tab) => `users/alice?tab=${tab}`);
  for (const [user, paths] of [
    ["alice", mine],
    ["operator", [...operators, ...rare, ...tabs]],
  ]) {
    const page = await open({ user, ...how });
    for (const [kind, viewport] of Object.entries({ desktop, phone })) {
      await page.setViewportSize(viewport);
      for (const path of paths) {
        if (path === "chat") await ask(page);
        else await visit(page, `/${path}`);
        await page.screenshot({ path: join(to, `${user}-${path.replace(/\W+/g, "-")}-${kind}.png`), fullPage: true });
      }
    }
  }
}
