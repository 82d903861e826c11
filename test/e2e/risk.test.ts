import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { startAdminApi, type AdminApi } from "../support/admin-api.ts";
import { startScriptedUpstream } from "../support/scripted-upstream.ts";
import { eventually } from "../support/eventually.ts";
import { bearer, post } from "../support/start-proxy.ts";

const config = `
[quota.tiers.basic]
requests = 10

[[limits]]
name = "each_user"
by = "user"
metric = "requests"
per = "hour"
max = 6

[concurrency]
max_parallel = 8
max_wait_ms = 0
max_waiting = 0

[risk]
enabled = true
start = "careful"
min_requests = 1
[[risk.steps]]
name = "careful"
rate = 0.5
parallel = 0.25
quota = 0.5
[[risk.steps]]
name = "normal"
[risk.signals.failures]
points = 40
from = 0
to = 1
`;

/** Alice is known only now; the other accounts have no date and count as old ones. */
const users = {
  alice: `username = "alice"
password = "correct horse battery"
quota_tier = "basic"
created_at = ${new Date().toISOString()}
`,
};

async function chat({ proxy }: AdminApi, user = "alice", model: unknown = "sim-fast"): Promise<Response> {
  const body = { model, messages: [{ role: "user", content: "hi" }], max_tokens: 5 };
  const response = await post(`${proxy.url}/v1/chat/completions`, body, bearer(await proxy.login(user)));
  await response.clone().text();
  return response;
}

describe("trust steps", () => {
  it("multiply a user's quota and rates", async () => {
    const api = await startAdminApi({ config, users });
    expect((await api.as("alice", "GET", "/auth/quota")).body.limits).toMatchObject([{ max: 5 }]);
    for (let i = 0; i < 3; i++) expect((await chat(api)).status).toBe(200);
    const refused = await chat(api);
    expect(refused.status).toBe(429);
    expect(await refused.json()).toMatchObject({ error: { code: "rate_limited", details: { rule: "each_user" } } });
  });

  it("end with a pin to a neutral step, for what comes then", async () => {
    const api = await startAdminApi({ config, users });
    for (let i = 0; i < 2; i++) expect((await chat(api)).status).toBe(200);
    await api.post("/admin/risk/alice/pin", { step: "normal" });
    for (let i = 0; i < 2; i++) expect((await chat(api)).status).toBe(200);
    expect((await chat(api)).status).toBe(429);
    expect((await api.as("alice", "GET", "/auth/quota")).body.limits).toMatchObject([{ max: 10, used: 4 }]);
  });

  it("multiply a user's parallel requests", async () => {
    const upstream = await startScriptedUpstream();
    onTestFinished(() => upstream.close());
    const api = await startAdminApi({ config, users, upstreamUrl: upstream.url });
    const [one, two] = [chat(api), chat(api)];
    const calls = [await upstream.next(), await upstream.next()];
    expect(await (await chat(api)).json()).toMatchObject({ error: { code: "concurrency_exceeded" } });
    for (const call of calls) {
      await call.delta("hello");
      await call.finish();
    }
    expect([(await one).status, (await two).status]).toEqual([200, 200]);
  });

  it("are shown with the score and its reasons, and can be pinned", async () => {
    const api = await startAdminApi({ config, users });
    expect((await api.get("/admin/risk/alice")).body).toMatchObject({ step: "careful", since: null, score: 0 });
    for (let i = 0; i < 2; i++) await chat(api, "alice", "no-such-model-anywhere");
    await chat(api, "bob");
    const { body } = await api.get("/admin/risk");
    expect(body).toMatchObject({ enabled: true, steps: ["careful", "normal"], total: 2 });
    expect(body.users[1]).toMatchObject({ user: "bob" });
    expect(body.users[0]).toMatchObject({
      user: "alice",
      step: "careful",
      pinned: false,
      factors: { rate: 0.5, parallel: 0.25, quota: 0.5 },
      score: 40,
      reasons: [{ signal: "failures", value: 1, points: 40, text: "100% of the requests were invalid" }],
    });
    expect(body.users[1]).toMatchObject({ step: "normal", score: 0, reasons: [] });
    expect((await api.get("/admin/risk?step=normal&min_score=0")).body.total).toBe(1);
    expect((await api.get("/admin/risk?min_score=30")).body.users).toHaveLength(1);

    const pinned = await api.post("/admin/risk/alice/pin", { step: "normal", reason: "a colleague" });
    expect(pinned).toMatchObject({ status: 200, body: { step: "normal", pinned: true } });
    // Over Redis, the file follows.
    await eventually(async () => {
      expect(await readFile(join(api.proxy.folder, "users", "alice.toml"), "utf8")).toContain('trust_step = "normal"');
    });
    expect((await api.post("/admin/risk/alice/pin", { step: null })).body).toMatchObject({ pinned: false });
    expect(await api.audits()).toMatchObject([
      {
        action: "trust.pinned",
        by: "boss",
        user: "alice",
        reason: "a colleague",
        before: { trust_step: null },
        after: { trust_step: "normal" },
      },
      { action: "trust.unpinned", before: { trust_step: "normal" }, after: { trust_step: null } },
    ]);
    const metrics = await (await fetch(`${api.proxy.url}/metrics`)).text();
    expect(metrics).toContain('proxy_trust_users{step="normal"} 1');
  });

  it("refuse what makes no sense, with the field's name", async () => {
    const api = await startAdminApi({ config, users });
    const pin = async (body: object, name = "alice") => {
      const { status, body: answer } = await api.post(`/admin/risk/${name}/pin`, body);
      return [status, answer.error?.param ?? answer.error?.code];
    };
    expect(await pin({ step: "vip" })).toEqual([400, "step"]);
    expect(await pin({})).toEqual([400, "step"]);
    expect(await pin({ step: 1 })).toEqual([400, "step"]);
    expect(await pin({ step: "normal", extra: 1 })).toEqual([400, "extra"]);
    expect(await pin({ step: "normal" }, "nobody")).toEqual([404, "not_found"]);
    expect((await api.get("/admin/risk?min_score=x")).status).toBe(400);
    expect((await api.as("alice", "GET", "/admin/risk")).status).toBe(403);
    expect((await api.as("eve", "POST", "/admin/risk/alice/pin", { step: "normal" })).status).toBe(403);
    expect(await api.audits()).toEqual([]);
  });

  it("are all neutral while [risk] is off", async () => {
    const api = await startAdminApi({ config: "[quota.tiers.basic]\nrequests = 10\n", users });
    await chat(api);
    expect((await api.get("/admin/risk")).body).toMatchObject({ enabled: false, users: [], total: 0 });
    expect((await api.as("alice", "GET", "/auth/quota")).body.limits).toMatchObject([{ max: 10 }]);
  });
});
