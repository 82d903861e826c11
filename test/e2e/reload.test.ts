import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, rename, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { startAdminApi, type AdminApi } from "../support/admin-api.ts";
import { eventually } from "../support/eventually.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";
import { openStream, type SseClient } from "../support/sse-client.ts";
import { tempDir } from "../support/temp-dir.ts";
import { alicePassword, bearer, type ProxyOptions, skipOverRedis } from "../support/start-proxy.ts";

/** A price, in CNY for a million tokens of output. */
const priceOf = (output: number): string =>
  `[[models.prices]]\nmodels = ["*"]\ncurrency = "CNY"\ncache_hit = 0\ncache_miss = 0\noutput = ${output}\n`;

const parallel = "[concurrency]\nmax_parallel = 9\n";

interface Reloaded extends AdminApi {
  readonly upstream: ScriptedUpstream;
  /** Replaces the config file at once, by renaming another over it. */
  replace(config: string): Promise<void>;
  /** Replaces it, and has it reloaded. */
  reload(config: string): Promise<{ readonly status: number; readonly body: Record<string, unknown> }>;
  chat(): Promise<SseClient>;
}

async function start(config = "", options: ProxyOptions = {}): Promise<Reloaded> {
  const upstream = await startScriptedUpstream();
  onTestFinished(() => upstream.close());
  const api = await startAdminApi({ upstreamUrl: upstream.url, config, configFile: true, ...options });
  const { proxy } = api;
  const token = await proxy.login();
  const path = join(proxy.folder, "config.toml");
  const replaceText = async (text: string): Promise<void> => {
    await writeFile(`${path}.new`, text);
    await rename(`${path}.new`, path);
  };
  const replace = (next: string): Promise<void> => replaceText(proxy.configText(next));
  return {
    ...api,
    upstream,
    replace,
    async reload(next) {
      await replace(next);
      return api.post("/admin/config/reload");
    },
    chat() {
      const body = { model: "flash", stream: true, messages: [{ role: "user", content: "hi" }] };
      return openStream(`${proxy.url}/chat/completions`, { headers: bearer(token), body });
    },
  };
}

/** The next chat that a provider gets. Others ask for its models. */
async function nextChat(upstream: ScriptedUpstream): ReturnType<ScriptedUpstream["next"]> {
  const call = await upstream.next();
  if (call.method === "POST") return call;
  call.respond(200, { data: [] });
  return nextChat(upstream);
}

/** Plays the provider of the next chat to its end. */
async function serve({ chat, upstream }: Reloaded, tokens = 1_000_000): Promise<SseClient> {
  const opening = chat();
  const call = await nextChat(upstream);
  await call.delta("hello");
  await call.finish({ prompt_tokens: 0, completion_tokens: tokens, total_tokens: tokens });
  const client = await opening;
  await client.rest();
  return client;
}

async function spent({ get }: AdminApi): Promise<number> {
  const { body } = await get("/admin/usage?by=user");
  const rows = body.rows as readonly { readonly costs: readonly { readonly cost: string }[] }[];
  return rows.flatMap(({ costs }) => costs).reduce((sum, { cost }) => sum + Number(cost), 0);
}

describe("a changed config.toml", () => {
  it("is noticed, comes into force as a whole, and is shown", async () => {
    const app = await start(priceOf(1));
    await serve(app);
    await app.replace(`${priceOf(3)}[chat]\ncollect_limit_bytes = 2048\n[auth]\nissuer = "other"`);
    await eventually(async () => {
      expect((await app.get("/admin/config")).body.config.chat.collect_limit_bytes).toBe(2048);
    });
    await serve(app);
    expect(await spent(app)).toBe(4);
    const { body } = await app.get("/admin/config");
    expect(body).toMatchObject({ restart_needed: ["auth.issuer"], invalid: null });
    expect(body.config.auth.issuer).toBe("deepseek-proxy");
    const line = app.proxy.logLines.find((one) => one.includes('"config.reloaded"'));
    expect(JSON.parse(line ?? "")).toMatchObject({
      by: "file",
      changes: [
        { path: "models.prices.0.output", before: 1, after: 3 },
        { path: "chat.collect_limit_bytes", before: 64 << 20, after: 2048 },
      ],
      restart_needed: ["auth.issuer"],
    });
  });

  it("that is invalid changes nothing; /healthz, /metrics and the answer say why", async () => {
    const app = await start(priceOf(1));
    const { url } = app.proxy;
    const { status, body } = await app.reload(`${priceOf(2)}[retry]\nattempts = 99\n[chta]\n`);
    expect(status).toBe(422);
    expect(body.error).toMatchObject({ code: "config_invalid" });
    const { problems } = (body.error as { details: { problems: readonly string[] } }).details;
    expect(problems).toEqual([
      expect.stringMatching(/^config\.toml: retry\.attempts: expected at most 10, got number 99 \(line \d+\)$/),
      expect.stringMatching(/^config\.toml: chta: unknown key; did you mean "chat"\? \(line \d+\)$/),
    ]);
    await serve(app);
    expect(await spent(app)).toBe(1);
    const health = await fetch(`${url}/healthz`);
    expect(health.status).toBe(200);
    const { checks } = (await health.json()) as { checks: Record<string, unknown> };
    expect(checks.config).toMatchObject({ ok: true, valid: false, error: problems.join("\n") });
    expect(await (await fetch(`${url}/metrics`)).text()).toMatch(/config_last_reload_successful 0\n/);

    expect((await app.reload(priceOf(2))).status).toBe(200);
    await serve(app);
    expect(await spent(app)).toBe(3);
    const metrics = await (await fetch(`${url}/metrics`)).text();
    expect(metrics).toMatch(/config_last_reload_successful 1\n/);
    expect(metrics).toMatch(/config_reloads_total\{result="success"\} [12]\n/);
    expect(metrics).toMatch(/config_last_reload_success_timestamp_seconds \d/);
    expect((await app.get("/admin/config")).body.invalid).toBeNull();
  });

  it("that is no plain file, or a huge one, is refused, and the proxy waits for no pipe", async () => {
    const app = await start(priceOf(1));
    const path = join(app.proxy.folder, "config.toml");
    const strange: readonly (readonly [RegExp, () => unknown])[] = [
      [/is not a plain file/, () => symlink("/dev/null", path)],
      [/is not a plain file/, () => execFileSync("mkfifo", [path])],
      [/illegal operation on a directory|is not a plain file/, () => mkdir(path)],
      [/is longer than \d+ bytes/, () => writeFile(path, "").then(() => truncate(path, 1 << 30))],
      [/not valid for encoding utf-8/, () => writeFile(path, Buffer.from([0xff, 0x0a]))],
    ];
    for (const [reason, place] of strange) {
      await rm(path, { recursive: true });
      await place();
      const { status, body } = await app.post("/admin/config/reload");
      const { problems } = (body.error as { details: { problems: readonly string[] } }).details;
      expect([status, problems]).toEqual([422, [expect.stringMatching(reason)]]);
      expect(problems[0]).not.toContain(app.proxy.folder);
    }
    await rm(path, { recursive: true });
    expect((await app.reload(priceOf(2))).status).toBe(200);
    await serve(app);
    expect(await spent(app)).toBe(2);
  });

  it("is reloaded by administrators only, and that is audited if it changes something", async () => {
    const app = await start();
    for (const user of ["alice", "eve"]) {
      expect((await app.as(user, "POST", "/admin/config/reload")).status).toBe(403);
    }
    expect((await app.post("/admin/config/reload")).body).toEqual({ ok: true, changes: [], restart_needed: [] });
    const changes = [{ path: "retry.attempts", before: 3, after: 4 }];
    const reloaded = await app.reload("[retry]\nattempts = 4\n");
    expect(reloaded.body).toEqual({ ok: true, changes, restart_needed: [] });
    expect(await app.audits()).toMatchObject([
      { action: "config.reloaded", by: "boss", before: { "retry.attempts": 3 }, after: { "retry.attempts": 4 } },
    ]);
  });

  it("that takes a tier from its users, or a provider's key, is refused and says so", async () => {
    const app = await start("[quota.tiers]\nbasic = {}\nspare = {}\n");
    const tiers = await app.reload("[quota.tiers]\nother = {}\n");
    expect(tiers.status).toBe(422);
    expect(tiers.body.error).toMatchObject({
      message: "quota.tiers.basic: expected this tier to stay, since it has 5 users (alice, bob, boss, chief, eve)",
    });
    const keyless = '[[providers]]\nname = "b"\nkind = "deepseek"\nmodels = ["*"]\napi_key_env = "NOT_THERE"\n';
    const keys = await app.reload(`[quota.tiers]\nbasic = {}\n${keyless}`);
    expect(keys.status).toBe(422);
    expect(JSON.stringify(keys.body)).toContain("providers.b: expected an API key");
    expect((await app.reload("[quota.tiers]\nbasic = {}\nmore = {}\n")).status).toBe(200);
  });

  it("that doesn't fit together with a key that stays until a restart is refused and says so", async () => {
    const costLimit = '[quota.tiers]\nbasic = { limits = [{ metric = "cost", per = "day", max = 5 }] }\n';
    const app = await start(costLimit + priceOf(1));
    // In itself it is right. In force with CNY it would refuse every model to those whose cost is limited.
    const other = `[quota]\ncurrency = "USD"\n${costLimit}${priceOf(1).replace("CNY", "USD")}`;
    const { status, body } = await app.reload(other);
    expect(status).toBe(422);
    expect(body.error).toMatchObject({
      message:
        "quota.tiers.basic.limits.0: expected a limit in a currency of models.prices, which are in USD (models.prices.0), not in CNY, got a table; quota.currency can only change with a restart, which this config needs",
    });
    await serve(app);
    expect(await spent(app)).toBe(1);

    const twice = costLimit.replace("[{", '[{ metric = "cost", per = "day", max = 9, currency = "CNY" }, {');
    const second = await app.reload(
      `[quota]\ncurrency = "USD"\n${twice}${priceOf(1)}${priceOf(1).replace('"*"', '"b-*"').replace("CNY", "USD")}`,
    );
    expect(second.status).toBe(422);
    expect(second.body.error).toMatchObject({ message: expect.stringContaining("expected one limit of cost per day") });
  });

  it("applies new limits to the next request, and what was used stays used", async () => {
    const app = await start('[quota.tiers]\nbasic = { limits = [{ metric = "requests", per = "day", max = 5 }] }\n');
    await serve(app);
    const limited = await app.reload(
      '[quota.tiers]\nbasic = { limits = [{ metric = "requests", per = "day", max = 1 }] }\n',
    );
    expect(limited.body.changes).toMatchObject([{ path: "quota.tiers.basic.limits.0.max", before: 5, after: 1 }]);
    expect((await app.chat()).status).toBe(402);
    await app.reload('[quota.tiers]\nbasic = { limits = [{ metric = "requests", per = "day", max = 2 }] }\n');
    await serve(app);
    expect((await app.chat()).status).toBe(402);
  });

  it("can take its page's origins, addresses and rates back at once", async () => {
    const app = await start('[metrics]\nallow = ["127.0.0.1"]\n');
    const origin = "https://app.example";
    const allowed = async () =>
      (await fetch(`${app.proxy.url}/livez`, { headers: { origin } })).headers.get("access-control-allow-origin");
    expect(await allowed()).toBeNull();
    const text = app.proxy.configText("[metrics]\nallow = []\n[rate_limit]\nrequests_per_second = 0.1\n");
    await writeFile(
      join(app.proxy.folder, "config.toml"),
      text.replace("[server]", `[server]\ncors_origins = ["${origin}"]`),
    );
    expect((await app.post("/admin/config/reload")).status).toBe(200);
    expect(await allowed()).toBe(origin);
    expect((await fetch(`${app.proxy.url}/metrics`)).status).toBe(403);
    await serve(app);
    expect((await app.chat()).status).toBe(429);
  });
});

describe("what lives on", () => {
  it("is told the new figures: sessions, failed logins, alerts, the log, and users of a tier that came", async () => {
    skipOverRedis("the password in a file is hashed once the user's tier exists");
    const users = { dora: 'username = "dora"\npassword = "correct horse battery"\nquota_tier = "gold"\n' };
    const env = { ALERT_WEBHOOK_SECRET: "0123456789abcdef" };
    const app = await start("[quota.tiers]\nbasic = {}\n", { users, env });
    const { url } = app.proxy;
    const login = (username: string, password: string) =>
      fetch(`${url}/auth/login`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ username, password }),
      });
    expect((await login("dora", alicePassword)).status).toBe(401);
    const hooks = await startScriptedUpstream();
    onTestFinished(() => hooks.close());
    const next = await app.reload(`[quota.tiers]
basic = {}
gold = {}
[auth]
access_token_seconds = 77
[security]
login_free_failures = 1
login_first_wait_seconds = 60
[alerts]
webhook_url = "${hooks.url}/hidden"
allow_private = true
events = ["login.locked", "config.rejected"]
`);
    expect(next.status).toBe(200);
    expect(JSON.stringify(next.body)).not.toContain("hidden");
    await eventually(async () => {
      expect((await login("dora", alicePassword)).status).toBe(200);
    });
    const tokens = (await (await login("eve", alicePassword)).json()) as { expires_in?: number };
    expect(tokens.expires_in).toBeLessThanOrEqual(77);
    for (let i = 0; i < 3; i++) await login("bob", "wrong password");
    expect((await login("bob", "wrong password")).status).toBe(429);
    const alert = await hooks.next();
    expect(alert.body.event).toBe("login.locked");
    alert.respond(200, "ok");

    // Without a secret no alert may be sent: the config that asks for that is refused.
    const refused = await app.reload(
      `[quota.tiers]\nbasic = {}\ngold = {}\n[alerts]\nwebhook_url = "https://a.example/"\nsecret_env = "NONE"\n`,
    );
    expect(refused.status).toBe(422);
    expect(JSON.stringify(refused.body)).toContain("set NONE to a secret");
    const rejected = await hooks.next();
    expect(rejected.body).toMatchObject({ event: "config.rejected", by: "boss" });
    rejected.respond(200, "ok");
  });
});

describe("a file with keys", () => {
  it("for tokens is read when it changes: the first signs, all verify, and a bad one changes nothing", async () => {
    const folder = tempDir();
    const file = join(folder, "jwt");
    const [old, fresh] = ["old:", "new:"].map((kid) => kid + randomBytes(36).toString("base64"));
    await writeFile(file, `${old}\n`);
    const { proxy } = await startAdminApi({
      env: { JWT_SECRETS_FILE: file },
      config: "[auth]\nlogin_reuse_seconds = 0\n",
    });
    const kidOf = (token: string): unknown =>
      JSON.parse(Buffer.from(token.split(".")[0] ?? "", "base64url").toString());
    const works = async (token: string): Promise<boolean> =>
      (await fetch(`${proxy.url}/auth/quota`, { headers: bearer(token) })).status === 200;
    const state = async (): Promise<Record<string, unknown>> => {
      const { checks } = (await (await fetch(`${proxy.url}/healthz`)).json()) as { checks: { config: object } };
      return { ...checks.config };
    };
    const before = await proxy.login();
    await writeFile(file, `${fresh}\n${old}\n`);
    await eventually(async () => {
      expect(kidOf(await proxy.login())).toMatchObject({ kid: "new" });
    });
    expect(await works(before)).toBe(true);
    await writeFile(file, "new:short\n");
    await eventually(async () => {
      expect(await state()).toMatchObject({ ok: true, key_files: [{ path: "JWT_SECRETS_FILE" }] });
    });
    const after = await proxy.login();
    expect([await works(before), await works(after)]).toEqual([true, true]);
    await writeFile(file, `${fresh}\n`);
    await eventually(async () => {
      expect(await state()).not.toHaveProperty("key_files");
      expect(await works(before)).toBe(false);
    });
    expect(await works(after)).toBe(true);
    const text = proxy.logLines.join("");
    expect(text).toContain('"changes":[{"path":"JWT_SECRETS_FILE"');
    expect(text).toContain('"config.rejected"');
    for (const secret of [old, fresh]) expect(text).not.toContain(secret?.slice(4));
  });
});

describe("a request that runs while the config is reloaded", () => {
  it("keeps its price and its provider, whose connections are closed once it has ended", async () => {
    const app = await start(`${priceOf(1)}${parallel}`);
    const other = await startScriptedUpstream();
    onTestFinished(() => other.close());
    const opening = app.chat();
    const call = await nextChat(app.upstream);
    await call.delta("hel");
    const client = await opening;

    const text = `[server]\nport = 0\n${priceOf(10)}${parallel}[[providers]]\nname = "other"\nkind = "deepseek"\napi_key_env = "DEEPSEEK_API_KEY"\nbase_url = "${other.url}"\nmodels = ["*"]\n`;
    await writeFile(join(app.proxy.folder, "config.toml"), text);
    const { body } = await app.post("/admin/config/reload");
    const { changes } = body as { changes: readonly { path: string }[] };
    expect(changes.map(({ path }) => path)).toContain("providers.upstream");
    const second = app.chat();
    const otherCall = await nextChat(other);
    await otherCall.finish({ prompt_tokens: 0, completion_tokens: 1_000_000, total_tokens: 1_000_000 });
    await (await second).rest();
    expect((await app.get("/admin/providers")).body.providers).toMatchObject([{ name: "other" }]);

    expect(await app.upstream.connections()).toBeGreaterThan(0);
    await call.delta("lo");
    await call.finish({ prompt_tokens: 0, completion_tokens: 1_000_000, total_tokens: 1_000_000 });
    expect((await client.rest()).at(-1)?.data).toBe("[DONE]");
    expect(await spent(app)).toBe(11);
    await eventually(async () => {
      expect(await app.upstream.connections()).toBe(0);
    });
  });
});
