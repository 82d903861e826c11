import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { startAdminApi } from "../support/admin-api.ts";
import { bearer, post } from "../support/start-proxy.ts";

const quick = "[auth]\nlogin_reuse_seconds = 0\n";

describe("an administrator", () => {
  it("sees a user's sessions and ends one of them, which the next request notices", async () => {
    const { proxy, get, delete: remove, audits } = await startAdminApi({ config: quick });
    const [first, second] = [await proxy.login(), await proxy.login()];
    const status = async (token: string): Promise<number> =>
      (await fetch(`${proxy.url}/auth/quota`, { headers: bearer(token) })).status;
    const { body } = await get("/admin/users/alice/sessions");
    expect(body.sessions).toHaveLength(2);
    expect(body.sessions[0]).toEqual({
      id: expect.any(String),
      created_at: expect.any(String),
      last_used_at: expect.any(String),
      expires_at: expect.any(String),
      ip: "127.0.0.1",
      client: expect.any(String),
    });
    const { body: mine } = await get("/admin/users/boss/sessions");
    const [{ id }] = body.sessions;
    // A session of somebody else is not this user's.
    expect(await remove(`/admin/users/alice/sessions/${mine.sessions[0].id}`)).toMatchObject({ status: 404 });
    expect(await remove(`/admin/users/alice/sessions/${id}`)).toEqual({ status: 204, body: null });
    expect([await status(first), await status(second)].sort()).toEqual([200, 401]);
    expect(await remove(`/admin/users/alice/sessions/${id}`)).toMatchObject({ status: 404 });
    expect(await audits()).toMatchObject([
      {
        action: "sessions.revoked",
        user: "alice",
        subject: id,
        by: "boss",
        after: null,
        before: { ip: "127.0.0.1", created_at: expect.any(String) as unknown },
      },
    ]);
  });

  it("ends all sessions of a user at once, with tokens of any age, and nobody else's", async () => {
    const { proxy, delete: remove, as, audits } = await startAdminApi({ config: quick });
    expect((await as("bob", "GET", "/auth/quota")).status).toBe(200);
    const answer = await post(`${proxy.url}/auth/login`, { username: "alice", password: "correct horse battery" });
    const { token, refresh_token } = (await answer.json()) as { token: string; refresh_token: string };
    await proxy.login();
    expect(await remove("/admin/users/alice/sessions")).toEqual({ status: 200, body: { ended: 2 } });
    expect((await fetch(`${proxy.url}/auth/quota`, { headers: bearer(token) })).status).toBe(401);
    expect((await post(`${proxy.url}/auth/refresh`, { refresh_token })).status).toBe(401);
    expect((await as("bob", "GET", "/auth/quota")).status).toBe(200);
    expect(await remove("/admin/users/alice/sessions")).toEqual({ status: 200, body: { ended: 0 } });
    expect(await audits()).toMatchObject([{ action: "sessions.revoked", subject: "*" }]);
  });

  it("sees a user's API keys, but never the keys themselves, and revokes one", async () => {
    const { proxy, get, delete: remove, as, audits } = await startAdminApi();
    const { body: made } = await as("alice", "POST", "/auth/keys", { name: "phone", models: ["sim-*"] });
    const { body } = await get("/admin/users/alice/keys");
    expect(body.keys).toMatchObject([{ id: made.id, name: "phone", models: ["sim-*"], last_used_at: null }]);
    expect(JSON.stringify(body)).not.toContain("dsp_");
    const use = () => fetch(`${proxy.url}/auth/quota`, { headers: bearer(made.key as string) });
    expect((await use()).status).toBe(200);
    expect(await remove(`/admin/users/bob/keys/${made.id}`)).toMatchObject({ status: 404 });
    expect(await remove(`/admin/users/alice/keys/${made.id}`)).toEqual({ status: 204, body: null });
    expect((await use()).status).toBe(401);
    expect(await remove(`/admin/users/alice/keys/${made.id}`)).toMatchObject({ status: 404 });
    expect(await audits()).toMatchObject([
      { action: "api_key.revoked", user: "alice", subject: made.id, before: { name: "phone" }, after: null },
    ]);
  });

  it("sees who has to wait for a login, and lets them in again", async () => {
    const {
      proxy,
      get,
      post: ask,
      audits,
    } = await startAdminApi({
      config: "[security]\nlogin_free_failures = 2\nlogin_first_wait_seconds = 600\n",
    });
    const login = async (username: string, password: string): Promise<number> =>
      (await post(`${proxy.url}/auth/login`, { username, password })).status;
    const wrong = async (name: string) => [await login(name, "wrong one"), await login(name, "wrong two")];
    expect([...(await wrong("alice")), await login("alice", "correct horse battery")]).toEqual([401, 401, 429]);
    await wrong("nobody");
    const { body } = await get("/admin/login-locks");
    expect(body.locks).toEqual([
      {
        scope: "account",
        user: "alice",
        guesses: "password",
        address: null,
        failures: 2,
        retry_after_ms: expect.any(Number),
      },
      {
        scope: "account",
        user: "nobody",
        guesses: "password",
        address: null,
        failures: 2,
        retry_after_ms: expect.any(Number),
      },
    ]);
    expect(await ask("/admin/users/alice/unlock")).toEqual({ status: 200, body: { unlocked: true } });
    expect(await login("alice", "correct horse battery")).toBe(200);
    expect(await ask("/admin/users/alice/unlock")).toEqual({ status: 200, body: { unlocked: false } });
    expect(await ask("/admin/users/nobody/unlock")).toEqual({ status: 200, body: { unlocked: true } });
    expect(await ask("/admin/users/nobody/unlock")).toMatchObject({ status: 404 });
    expect((await get("/admin/login-locks")).body).toEqual({ locks: [] });
    expect(await audits()).toMatchObject([
      { action: "user.login_unlocked", user: "alice", by: "boss" },
      { action: "user.login_unlocked", user: "nobody", by: "boss" },
    ]);
  });

  it("is told where there is no such user, and of names that nobody can have", async () => {
    const { get, delete: remove, post: ask } = await startAdminApi();
    for (const [name, status] of [
      ["nobody", 404],
      ["..%2fx", 400],
      ["Alice", 400],
      ["con", 400],
    ] as const) {
      const user = `/admin/users/${name}`;
      const answers = [
        await get(`${user}/sessions`),
        await get(`${user}/keys`),
        await remove(`${user}/sessions`),
        await remove(`${user}/sessions/x`),
        await remove(`${user}/keys/x`),
        await ask(`${user}/unlock`),
      ];
      expect(answers.map((answer) => answer.status)).toEqual(answers.map(() => status));
    }
  });

  it("is told of a change that could not be written to the audit log, and the change stands", async () => {
    const { proxy, delete: remove, get } = await startAdminApi();
    const token = await proxy.login();
    const folder = join(proxy.folder, "logs", "audit");
    await rm(folder, { recursive: true, force: true });
    await writeFile(folder, "in the way");
    expect(await remove("/admin/users/alice/sessions")).toMatchObject({
      status: 503,
      body: { error: { code: "storage_unavailable", message: expect.stringMatching(/change was made/) as unknown } },
    });
    expect((await fetch(`${proxy.url}/auth/quota`, { headers: bearer(token) })).status).toBe(401);
    expect((await get("/healthz")).body.checks.audit_log).toEqual({ ok: true, last_error: expect.any(String) });
  });
});
