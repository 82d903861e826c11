// Counts the files of src/ that one request runs through, by V8's coverage: a streamed chat at most 60, a login at most
// 35. More means that a reader has too many files to open to follow it.
//
//   node scripts/request-files.mjs          the counts; exits 1 if one is above its limit
//   node scripts/request-files.mjs --list   and the files
//
// The simulator stands for the provider, so its files don't count. Neither do functions that only run when a module is
// loaded.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { Session } from "node:inspector/promises";
import { hostname, tmpdir } from "node:os";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { loadConfig } from "../dist/config/load.js";
import { createLogger } from "../dist/events/logger.js";
import { createProcessTable } from "../dist/lib/files/lock-owner.js";
import { buildServer } from "../dist/server.js";
import { createServices } from "../dist/services.js";

const limits = { "a streamed chat": 60, "a login": 35 };
const dist = fileURLToPath(new URL("../dist/", import.meta.url));
const password = "correct horse battery";

const folder = mkdtempSync(join(tmpdir(), "request-files-"));
mkdirSync(join(folder, "users"));
const user = `username = "alice"\npassword = "${password}"\nquota_tier = "basic"\n`;
writeFileSync(join(folder, "users", "alice.toml"), user, { mode: 0o600 });
writeFileSync(join(folder, "config.toml"), '[server]\nhost = "127.0.0.1"\nport = 0\n');

const log = createLogger({ level: "info", destination: { write: () => undefined } });
const services = await createServices({
  loaded: loadConfig(join(folder, "config.toml"), {}, folder),
  env: {},
  log,
  processes: createProcessTable({ pid: process.pid, host: hostname(), exists: () => true }),
  onLockLost: () => process.exit(1),
});
const server = await buildServer(services);
const url = await server.listen();

const session = new Session();
session.connect();
await session.post("Profiler.enable");
await session.post("Profiler.startPreciseCoverage", { callCount: true, detailed: false });

/** What `run` runs through. */
async function filesOf(run) {
  await session.post("Profiler.takePreciseCoverage");
  await run();
  const { result } = await session.post("Profiler.takePreciseCoverage");
  return result
    .filter(({ url: script }) => script.startsWith(`file://${dist}`))
    .filter(({ functions }) =>
      functions.some(
        ({ functionName, ranges: [{ startOffset, count }] }) => count > 0 && (functionName !== "" || startOffset > 0),
      ),
    )
    .map(({ url: script }) => relative(dist, fileURLToPath(script)).replace(/\.js$/, ".ts"))
    .filter((file) => !file.startsWith("simulator/"))
    .sort();
}

let token = "";
async function post(path, body) {
  const headers = { "content-type": "application/json", ...(token === "" ? {} : { authorization: `Bearer ${token}` }) };
  const response = await fetch(url + path, { method: "POST", headers, body: JSON.stringify(body) });
  const text = await response.text();
  if (!response.ok) throw new Error(`${path}: ${response.status} ${text}`);
  return text;
}
const chat = () =>
  post("/v1/chat/completions", { model: "sim-fast", stream: true, messages: [{ role: "user", content: "Hello" }] });

const measured = {};
measured["a login"] = await filesOf(async () => {
  const response = JSON.parse(await post("/auth/login", { username: "alice", password }));
  token = response.token;
});
await chat();
measured["a streamed chat"] = await filesOf(chat);

let failed = false;
for (const [name, limit] of Object.entries(limits)) {
  const files = measured[name];
  console.log(`${name}: ${files.length} files (at most ${limit})`);
  if (process.argv.includes("--list")) for (const file of files) console.log(`  ${file}`);
  failed ||= files.length > limit;
}
await server.stop(0);
await services.close();
rmSync(folder, { recursive: true, force: true });
process.exit(failed ? 1 : 0);
