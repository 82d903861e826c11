import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { startAdminApi, type AdminApi } from "../support/admin-api.ts";
import { eventually } from "../support/eventually.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";
import { bearer, post, upstreamKey } from "../support/start-proxy.ts";

async function useUpstream(): Promise<ScriptedUpstream> {
  const upstream = await startScriptedUpstream();
  onTestFinished(() => upstream.close());
  return upstream;
}

function provider(name: string, { url }: ScriptedUpstream, rest = ""): string {
  return `[[providers]]
name = "${name}"
kind = "deepseek"
base_url = "${url.replace("//", "//planted-user:planted-password@")}?token=planted-query"
api_key_env = "DEEPSEEK_API_KEY"
models = ["*"]
${rest}
`;
}

async function chat({ proxy }: AdminApi): Promise<number> {
  const body = { model: "m", stream: false, messages: [{ role: "user", content: "hi" }] };
  const answer = await post(`${proxy.url}/chat/completions`, body, bearer(await proxy.login()));
  await answer.text();
  return answer.status;
}

describe("providers", () => {
  it("are shown with their state and figures, and without their keys", async () => {
    const upstream = await useUpstream();
    const api = await startAdminApi({ upstreamUrl: upstream.url });
    const answer = chat(api);
    const call = await upstream.next();
    expect((await api.get("/admin/providers")).body.providers).toMatchObject([{ in_flight: 1 }]);
    await call.delta("hello");
    await call.finish();
    expect(await answer).toBe(200);
    const { body } = await api.get("/admin/providers");
    expect(body).toEqual({
      providers: [
        {
          name: "upstream",
          kind: "deepseek",
          state: "up",
          in_flight: 0,
          cap: null,
          asked: 1,
          failed: 0,
          retries: 0,
          error_rate: 0,
          first_event_ms: { p50: expect.any(Number), p90: expect.any(Number), p99: expect.any(Number) },
          keys: [{ key: 0, breaker: "closed", limited_for_ms: 0, circuits: [], in_flight: 0, probe: null }],
        },
      ],
    });
    expect(JSON.stringify(body)).not.toContain(upstreamKey);
  });

  it("show their balance where they tell it", async () => {
    const upstream = await useUpstream();
    const api = await startAdminApi({ upstreamUrl: upstream.url, config: "[health]\nprobe_seconds = 0.05\n" });
    const call = await upstream.next();
    expect(call.url).toBe("/user/balance");
    const amounts = [{ currency: "CNY", total_balance: "110.00" }];
    call.respond(200, { is_available: true, balance_infos: amounts });
    await eventually(async () => {
      const { body } = await api.get("/admin/providers");
      expect(body.providers[0].keys[0].probe).toEqual({
        at: expect.any(String),
        ok: true,
        reason: null,
        balance: { available: true, amounts: [{ currency: "CNY", total: "110.00" }] },
      });
    });
  });

  it("that are drained get no more chats, and restored ones do; both are audited once", async () => {
    const [first, second] = [await useUpstream(), await useUpstream()];
    const config = provider("first", first) + provider("second", second, "priority = 1") + "[retry]\nattempts = 1\n";
    const api = await startAdminApi({ config, env: { DEEPSEEK_API_KEY: upstreamKey } });
    const answeredBy = async (upstream: ScriptedUpstream): Promise<number> => {
      const answer = chat(api);
      const call = await upstream.next();
      await call.delta("hello");
      await call.finish();
      return answer;
    };
    expect(await answeredBy(first)).toBe(200);
    const drained = await api.post("/admin/providers/first/drain", { reason: "an update" });
    expect(drained).toMatchObject({ status: 200, body: { name: "first", state: "drained" } });
    expect(await answeredBy(second)).toBe(200);
    expect(await api.post("/admin/providers/first/drain")).toMatchObject({ status: 200 });
    await api.post("/admin/providers/second/drain", {});
    expect(await chat(api)).toBe(503);
    expect(await api.post("/admin/providers/first/restore")).toMatchObject({ status: 200, body: { state: "up" } });
    expect(await api.post("/admin/providers/first/restore")).toMatchObject({ status: 200, body: { state: "up" } });
    expect(await answeredBy(first)).toBe(200);
    expect(await api.audits()).toMatchObject([
      {
        action: "provider.drained",
        subject: "first",
        by: "boss",
        reason: "an update",
        before: { state: "up" },
        after: { state: "drained" },
      },
      { action: "provider.drained", subject: "second", reason: "" },
      { action: "provider.restored", subject: "first", before: { state: "drained" }, after: { state: "up" } },
    ]);
    expect((await api.audits())[0]).not.toHaveProperty("user");
  });

  it("stay drained when a reload gives them another address, or one key more", async () => {
    const [first, second, elsewhere] = [await useUpstream(), await useUpstream(), await useUpstream()];
    const rest = provider("second", second, "priority = 1");
    const env = { DEEPSEEK_API_KEY: upstreamKey, MORE: "sk-another-key-0000" };
    const api = await startAdminApi({ config: provider("first", first) + rest, configFile: true, env });
    const put = async (config: string): Promise<void> => {
      await writeFile(join(api.proxy.folder, "config.toml"), api.proxy.configText(config + rest));
      expect((await api.post("/admin/config/reload")).status).toBe(200);
    };
    await api.post("/admin/providers/first/drain", { reason: "an update" });
    const keys = 'api_keys_env = ["DEEPSEEK_API_KEY", "MORE"]';
    const wider = provider("first", elsewhere).replace('api_key_env = "DEEPSEEK_API_KEY"', keys);
    for (const config of [provider("first", elsewhere), wider]) {
      await put(config);
      const answer = chat(api);
      const call = await second.next();
      await call.delta("hello");
      await call.finish();
      expect(await answer).toBe(200);
      expect((await api.get("/admin/providers")).body.providers[0]).toMatchObject({ name: "first", state: "drained" });
    }
    await api.post("/admin/providers/first/restore");
    expect((await api.get("/admin/providers")).body.providers[0]).toMatchObject({ name: "first", state: "up" });
  });

  it("that are not there, and orders that say too much, are refused", async () => {
    const api = await startAdminApi();
    expect(await api.post("/admin/providers/nobody/drain")).toMatchObject({ status: 404 });
    expect(await api.post("/admin/providers/nobody/restore", {})).toMatchObject({ status: 404 });
    const answer = await api.post("/admin/providers/simulator/drain", { why: "no" });
    expect(answer).toMatchObject({ status: 400, body: { error: { param: "why" } } });
    expect(await api.audits()).toEqual([]);
  });

  it("are tested by one small chat, which is charged to nobody and changes no circuit", async () => {
    const upstream = await useUpstream();
    const api = await startAdminApi({ upstreamUrl: upstream.url, config: "[breaker]\nfailures = 1\n" });
    const test = (body: object) => api.as("boss", "POST", "/admin/providers/upstream/test", body);
    const good = test({ model: "m" });
    const call = await upstream.next();
    expect(call.body).toMatchObject({ model: "m", max_tokens: 1, stream: true });
    expect(await test({ model: "m" })).toMatchObject({ status: 409, body: { error: { code: "conflict" } } });
    await call.delta("h");
    await call.finish();
    expect(await good).toMatchObject({
      status: 200,
      body: {
        ok: true,
        provider: "upstream",
        account: 0,
        model: "m",
        status: 200,
        error: null,
        headers_ms: expect.any(Number),
        first_token_ms: expect.any(Number),
        total_ms: expect.any(Number),
        usage: { input_tokens: expect.any(Number), output_tokens: expect.any(Number) },
      },
    });
    // While it is drained, and with an answer that quotes the key.
    await api.as("boss", "POST", "/admin/providers/upstream/drain");
    const refused = test({ model: "m", account: 0 });
    (await upstream.next()).respond(401, { error: { message: `bad key ${upstreamKey}`, code: "invalid_key" } });
    const { body } = await refused;
    expect(body).toMatchObject({ ok: false, status: 401, usage: null, first_token_ms: null });
    expect(body.error).toEqual({ kind: "key_refused", code: "invalid_key", message: "bad key [key]" });
    await api.as("boss", "POST", "/admin/providers/upstream/restore");
    const [shown] = (await api.get("/admin/providers")).body.providers;
    expect(shown).toMatchObject({ state: "up", asked: 0, failed: 0, keys: [{ breaker: "closed", circuits: [] }] });
    expect((await api.get("/admin/audit")).body.events).toEqual(
      expect.arrayContaining([expect.objectContaining({ action: "provider.tested", subject: "upstream" })]),
    );
    expect((await api.get("/admin/usage")).body.rows ?? []).toEqual([]);
    const byDefault = test({});
    const last = await upstream.next();
    expect(last.body).toMatchObject({ model: "deepseek-flash" });
    await last.delta("h");
    await last.finish();
    expect((await byDefault).body).toMatchObject({ ok: true, model: "deepseek-flash" });
    // Each choice reports its own, and their sum can't be counted.
    const absurd = test({ model: "m" });
    const odd = await upstream.next();
    const usage = { prompt_tokens: 1, completion_tokens: Number.MAX_SAFE_INTEGER };
    for (const index of [0, 1])
      await odd.event({ choices: [{ index, delta: { content: "h" }, finish_reason: "stop", usage }] });
    await odd.done();
    odd.end();
    expect(await absurd).toMatchObject({ status: 200, body: { ok: true, usage: null } });
    expect((await test({ model: "m", account: 3 })).status).toBe(404);
    expect((await api.as("boss", "POST", "/admin/providers/none/test", {})).status).toBe(404);
  });
});

describe("the config", () => {
  it("is shown with its defaults, and with every secret masked", async () => {
    const upstream = await useUpstream();
    const config = `${provider("first", upstream)}
[[models.prices]]
models = ["*"]
currency = "CNY"
valid_from = 2026-10-01
cache_hit = 1
cache_miss = 2
output = 4
[alerts]
webhook_url = "https://hooks.example.com/services/planted-path?key=planted-key#planted-hash"
`;
    const env = { DEEPSEEK_API_KEY: upstreamKey, ALERT_WEBHOOK_SECRET: "planted-secret-of-thirty-two-bytes" };
    const api = await startAdminApi({ config, env });
    for (const user of ["boss", "eve"]) {
      const { status, body } = await api.as(user, "GET", "/admin/config");
      expect(status).toBe(200);
      expect(body.config).toMatchObject({
        server: { host: "127.0.0.1", body_limit_bytes: 32 << 20 },
        logs: { keep_days: 30, audit_keep_days: 400 },
        providers: [
          {
            name: "first",
            base_url: `${upstream.url.replace("//", "//***@")}/?***`,
            api_key_env: "DEEPSEEK_API_KEY",
            timeouts: {},
          },
        ],
        models: { prices: [{ valid_from: "2026-10-01", output: 4 }] },
        quota: { tiers: { basic: { requests: 500 } } },
        alerts: { webhook_url: "https://hooks.example.com/***?***", secret_env: "ALERT_WEBHOOK_SECRET" },
      });
      const text = JSON.stringify(body);
      expect(text).not.toContain("planted");
      expect(text).not.toContain(upstreamKey);
    }
  });
});
