// Records what this version of the proxy answers to its clients, into clients/fixtures/VERSION; the tests of both clients
// replay it, so that a client is held against the last two versions of the proxy. Run it for every release, after
// `npm run build`: node scripts/record-client-fixtures.mjs. Folders of older versions than the last two are removed.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { withBuiltProxy } from "./built-proxy.mjs";

const root = join(import.meta.dirname, "..");
const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const fixtures = join(root, "clients", "fixtures");
const keptVersions = 2;
const password = "correct horse battery";
const messages = [{ role: "user", content: "Say hello." }];
const config = `
[server]
port = 0
[quota.tiers]
basic = { requests = 100000 }
poor = { requests = 1 }
slow = { requests = 100000 }
[[limits]]
by = "user"
per = "minute"
max = 1
tiers = ["slow"]
`;
/** Headers that differ between any two answers, or belong to the connection. */
const unrecorded = new Set(["date", "connection", "keep-alive", "transfer-encoding", "content-length"]);
/** What must not be in a repository, and would look like a leak: [found in recorded text, put in its place]. */
const secrets = [
  [/"(token|access_token)":"[^"]*"/g, '"$1":"recorded-access-token"'],
  [/"refresh_token":"[^"]*"/g, '"refresh_token":"recorded-refresh-token"'],
  [/dsp_[\w-]+/g, "dsp_recorded"],
];

const folder = mkdtempSync(join(tmpdir(), "fixtures-"));
mkdirSync(join(folder, "users"));
for (const [name, tier] of Object.entries({ alice: "basic", bob: "poor", carol: "slow" })) {
  const user = `username = "${name}"\npassword = "${password}"\nquota_tier = "${tier}"\n`;
  writeFileSync(join(folder, "users", `${name}.toml`), user);
}
writeFileSync(join(folder, "config.toml"), config);
try {
  await withBuiltProxy(join(folder, "config.toml"), async (url) => {
    rmSync(join(fixtures, version), { recursive: true, force: true });
    mkdirSync(join(fixtures, version), { recursive: true });
    await recordAll(recorder(url));
    for (const old of readdirSync(fixtures).sort(byVersion).slice(0, -keptVersions)) {
      rmSync(join(fixtures, old), { recursive: true });
    }
  });
} finally {
  rmSync(folder, { recursive: true, force: true });
}

async function recordAll(record) {
  const login = (username) => ({ method: "POST", path: "/auth/login", body: { username, password } });
  const chat = (model, more) => ({
    method: "POST",
    path: "/v1/chat/completions",
    body: { model, messages, stream: true, ...more },
  });
  const get = (path) => ({ method: "GET", path });

  const { access_token: alice, refresh_token } = await record("login", login("alice"));
  const { access_token: bob } = await record(undefined, login("bob"));
  const { access_token: carol } = await record(undefined, login("carol"));
  await record("stream-reasoning", chat("deepseek-v4-pro", { max_tokens: 30 }), alice);
  await record("stream-usage-asked", chat("sim-usage-after", { stream_options: { include_usage: true } }), alice);
  await record("stream-truncated", chat("sim-truncate"), alice);
  await record("stream-error", chat("sim-error-event:3"), alice);
  await record("stream-quota-warning", chat("sim-fast"), bob);
  await record("quota", get("/auth/quota"), alice);
  await record("usage", get("/auth/usage?by=day"), alice);
  await record("balance", get("/user/balance"), alice);
  await record("models", get("/v1/models"), alice);
  await record("key-created", { method: "POST", path: "/auth/keys", body: { name: "laptop" } }, alice);
  await record("keys", get("/auth/keys"), alice);
  await record("error-400", chat("sim-fast", { max_tokens: -1 }), alice);
  await record("error-401-credentials", { ...login("alice"), body: { username: "alice", password: "wrong" } });
  await record("error-401-token", get("/auth/quota"), `${alice}x`);
  await record("error-402", chat("sim-fast"), bob);
  await record("error-403", get("/admin/users"), alice);
  await record("error-404-model", chat("no-such-model"), alice);
  await record("error-404-path", get("/auth/nothing"), alice);
  await record("error-405", { method: "PUT", path: "/auth/quota" }, alice);
  await record(undefined, chat("sim-fast"), carol);
  await record("error-429", chat("sim-fast"), carol);
  await record("error-500-upstream", chat("sim-500"), alice);
  await record("error-503-upstream", chat("sim-503"), alice);
  await record("refresh", { method: "POST", path: "/auth/refresh", body: { refresh_token } });
}

/** Sends a request and writes the exchange down, if it has a name. Returns the JSON of the answer. */
function recorder(url) {
  return async (name, { method, path, body }, token) => {
    const response = await fetch(url + path, {
      method,
      headers: {
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (name !== undefined) {
      const headers = [...response.headers].filter(([header]) => !unrecorded.has(header));
      const recorded = secrets.reduce((kept, [found, placed]) => kept.replace(found, placed), text);
      const exchange = {
        request: { method, path, ...(body === undefined || path === "/auth/login" ? {} : { body }) },
        response: { status: response.status, headers: Object.fromEntries(headers), body: recorded },
      };
      const json = JSON.stringify(exchange, undefined, 2);
      const file = secrets.reduce((kept, [found, placed]) => kept.replace(found, placed), json);
      writeFileSync(join(fixtures, version, `${name}.json`), `${file}\n`);
      console.log(`${response.status} ${name}`);
    }
    return response.headers.get("content-type")?.startsWith("application/json") ? JSON.parse(text) : undefined;
  };
}

function byVersion(one, other) {
  return one.localeCompare(other, "en", { numeric: true });
}
