import { request as httpRequest } from "node:http";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { alicePassword, bearer, post, startProxy, userFile, type RunningProxy } from "../support/start-proxy.ts";

const sameOrigin = { "sec-fetch-site": "same-origin" };
const chat = { model: "sim-fast", messages: [{ role: "user", content: "hi" }], stream: false };

describe("the panel's session", () => {
  let proxy: RunningProxy;
  let admin: string;

  beforeAll(async () => {
    proxy = await startProxy({
      config: '[panel]\ntitle = "Our models"\n',
      server: 'trust_proxy = ["127.0.0.1"]',
      users: {
        alice: userFile("alice", alicePassword),
        bob: userFile("bob", "bobs long password"),
        carol: userFile("carol", "carols long password"),
        dora: userFile("dora", "doras long password", "must_change_password = true\n"),
        root: userFile("root", "roots long password", 'roles = ["admin"]\n'),
      },
    });
    admin = await proxy.login("root", "roots long password");
  });
  afterAll(() => proxy.dispose());

  /** Logs in; returns the pair NAME=VALUE that a browser sends back. */
  async function logIn(username: string, password: string, headers: Record<string, string> = sameOrigin) {
    const response = await post(`${proxy.url}/panel/api/login`, { username, password }, headers);
    const set = response.headers.get("set-cookie") ?? "";
    return { response, set, cookie: set.split(";", 1)[0] ?? "", body: (await response.json()) as object };
  }

  const as = (cookie: string, more: Record<string, string> = sameOrigin) => ({ cookie, ...more });
  const get = (path: string, cookie: string) => fetch(`${proxy.url}${path}`, { headers: as(cookie) });
  const codeOf = async (response: Response) => ((await response.json()) as { error: { code: string } }).error.code;

  it("is an opaque cookie that stands for an access token everywhere", async () => {
    const { response, set, cookie, body } = await logIn("alice", alicePassword);
    expect(response.status).toBe(200);
    expect(body).toEqual({ user: "alice", must_change_password: false });
    expect(set).toMatch(/^__Host-panel=dsc_[A-Za-z0-9_-]{64}; Max-Age=43200; Path=\/; HttpOnly; SameSite=Lax; Secure$/);
    expect(response.headers.get("cache-control")).toBe("no-store");
    expect(await (await get("/panel/api/me", cookie)).json()).toEqual({
      user: "alice",
      roles: ["user"],
      tier: "basic",
      groups: [],
      group_owner_of: [],
      must_change_password: false,
      simulated: true,
      title: "Our models",
      timezone: "Asia/Shanghai",
      usage_days: 90,
      version: expect.any(String),
      may: ["use"],
    });
    expect((await get("/auth/quota", cookie)).status).toBe(200);
    expect((await get("/auth/keys", cookie)).status).toBe(200);
    expect((await get("/admin/users", cookie)).status).toBe(403);
    expect((await post(`${proxy.url}/v1/chat/completions`, chat, as(cookie))).status).toBe(200);
    const { sessions } = (await (await get("/auth/sessions", cookie)).json()) as { sessions: { current: boolean }[] };
    expect(sessions.filter(({ current }) => current)).toHaveLength(1);
    const root = await logIn("root", "roots long password");
    expect(await (await get("/panel/api/me", root.cookie)).json()).toMatchObject({ may: ["use", "audit", "operate"] });
    expect((await get("/admin/users", root.cookie)).status).toBe(200);
  });

  it.each([
    ["a form of another page", { "content-type": "application/x-www-form-urlencoded", "sec-fetch-site": "cross-site" }],
    ["a form of our own page", { "content-type": "application/x-www-form-urlencoded", ...sameOrigin }],
    ["text that is JSON", { "content-type": "text/plain", ...sameOrigin }],
    ["another site", { "sec-fetch-site": "cross-site" }],
    ["a neighbour of the same site", { "sec-fetch-site": "same-site" }],
    ["the address bar", { "sec-fetch-site": "none" }],
    ["an old browser on a foreign page", { origin: "https://evil.example" }],
    ["an old browser in a sandboxed frame", { origin: "null" }],
    ["a host that begins like ours", { origin: "http://127.0.0.1.evil.example" }],
    ["nobody knows where", {}],
  ])("refuses to change anything for %s", async (_who, headers: Record<string, string>) => {
    const { cookie } = await logIn("alice", alicePassword);
    const body = { name: "planted" };
    for (const path of ["/auth/keys", "/v1/chat/completions", "/panel/api/password"]) {
      const refused = await post(`${proxy.url}${path}`, body, as(cookie, headers));
      expect([refused.status, await codeOf(refused)], path).toEqual([403, "csrf"]);
    }
    const refused = await fetch(`${proxy.url}/auth/logout-all`, {
      method: "POST",
      headers: as(cookie, { "content-type": "text/plain", ...headers }),
    });
    expect(refused.status).toBe(403);
    expect((await post(`${proxy.url}/panel/api/logout`, {}, as(cookie, headers))).status).toBe(403);
    expect((await get("/auth/quota", cookie)).status).toBe(200);
    // A login from there would leave its victim in the attacker's account.
    if (Object.keys(headers).length > 0) {
      const login = await post(`${proxy.url}/panel/api/login`, { username: "alice", password: alicePassword }, headers);
      expect([login.status, login.headers.get("set-cookie")]).toEqual([403, null]);
    }
  });

  it("lets our own page act, also one in an old browser, and a body be absent", async () => {
    const { cookie } = await logIn("alice", alicePassword);
    const { host } = new URL(proxy.url);
    for (const headers of [sameOrigin, { origin: `http://${host}` }, { origin: `https://${host}` }]) {
      expect((await post(`${proxy.url}/auth/keys`, { name: "mine" }, as(cookie, headers))).status).toBe(201);
    }
    const out = await fetch(`${proxy.url}/auth/logout-all`, { method: "POST", headers: as(cookie) });
    expect(out.status).toBe(204);
  });

  it("is given anew at every login, and never under an id that somebody knew before", async () => {
    const planted = "__Host-panel=dsc_" + "A".repeat(64);
    const first = await logIn("alice", alicePassword, as(planted));
    expect(first.cookie).not.toBe(planted);
    expect((await get("/auth/quota", planted)).status).toBe(401);
    const second = await logIn("alice", alicePassword, as(first.cookie));
    expect(second.cookie).not.toBe(first.cookie);
    expect((await get("/auth/quota", first.cookie)).status).toBe(401);
    expect((await get("/auth/quota", second.cookie)).status).toBe(200);
  });

  it("takes no API key and no token as a cookie, and no cookie as a token", async () => {
    const token = await proxy.login();
    const login = await post(`${proxy.url}/auth/login`, { username: "alice", password: alicePassword });
    const { refresh_token: refresh } = (await login.json()) as { refresh_token: string };
    const made = await post(`${proxy.url}/auth/keys`, { name: "k" }, bearer(token));
    const { key } = (await made.json()) as { key: string };
    for (const value of [token, key, refresh, refresh.replace("dsr_", "dsc_"), "", '"', "dsc_", "dsr_"]) {
      const response = await get("/auth/quota", `__Host-panel=${value}`);
      expect([response.status, await codeOf(response)], value).toEqual([401, "invalid_token"]);
    }
    const { cookie } = await logIn("alice", alicePassword);
    const value = cookie.slice("__Host-panel=".length);
    for (const headers of [bearer(value), { "x-api-key": value }]) {
      expect((await fetch(`${proxy.url}/auth/quota`, { headers })).status).toBe(401);
    }
    // It can't be exchanged for tokens; who tries has stolen it.
    const exchanged = await post(`${proxy.url}/auth/refresh`, { refresh_token: value.replace("dsc_", "dsr_") });
    expect(exchanged.status).toBe(401);
    expect((await get("/auth/quota", cookie)).status).toBe(401);
    // The plain name can be planted by neighbours: it counts for nothing where the other can be kept.
    const { cookie: own } = await logIn("alice", alicePassword);
    expect((await get("/auth/quota", own.replace("__Host-", ""))).status).toBe(401);
  });

  it("ends at once by logout, disabling, and a new password", async () => {
    const { cookie } = await logIn("bob", "bobs long password");
    const out = await post(`${proxy.url}/panel/api/logout`, {}, as(cookie));
    expect([out.status, out.headers.get("set-cookie")]).toEqual([
      204,
      "__Host-panel=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax; Secure",
    ]);
    expect((await get("/auth/quota", cookie)).status).toBe(401);

    const { cookie: second } = await logIn("bob", "bobs long password");
    const patch = (name: string, body: object) =>
      fetch(`${proxy.url}/admin/users/${name}`, {
        method: "PATCH",
        headers: { "content-type": "application/json", ...bearer(admin) },
        body: JSON.stringify(body),
      });
    expect((await patch("bob", { is_active: false })).status).toBe(200);
    expect(await codeOf(await get("/auth/quota", second))).toBe("account_disabled");
    expect((await patch("bob", { is_active: true })).status).toBe(200);
    expect((await get("/auth/quota", second)).status).toBe(401);

    const [here, there] = [await logIn("carol", "carols long password"), await logIn("carol", "carols long password")];
    const change = { current_password: "carols long password", new_password: "carols newer password" };
    const changed = await post(`${proxy.url}/panel/api/password`, change, as(here.cookie));
    expect(changed.status).toBe(200);
    expect((await get("/auth/quota", here.cookie)).status).toBe(401);
    expect((await get("/auth/quota", there.cookie)).status).toBe(401);
    const next = (changed.headers.get("set-cookie") ?? "").split(";", 1)[0] ?? "";
    expect((await get("/auth/quota", next)).status).toBe(200);
    expect((await post(`${proxy.url}/admin/users/carol/reset-password`, {}, bearer(admin))).status).toBe(200);
    expect((await get("/auth/quota", next)).status).toBe(401);
  });

  it("of a one-time password is good for nothing but another one", async () => {
    const { body, cookie } = await logIn("dora", "doras long password");
    expect(body).toEqual({ user: "dora", must_change_password: true });
    expect(await (await get("/panel/api/me", cookie)).json()).toMatchObject({ must_change_password: true });
    expect(await codeOf(await get("/auth/quota", cookie))).toBe("password_change_required");
  });

  it("says why it is less safe where the page came over plain http, and keeps to https behind a proxy", async () => {
    const login = (headers: Record<string, string>) => rawLogin(proxy.url, { ...sameOrigin, ...headers });
    const plain = await login({ host: "llm.example" });
    expect(plain.cookie).toMatch(/^panel=dsc_[^;]+; Max-Age=43200; Path=\/; HttpOnly; SameSite=Lax$/);
    expect(plain.body).toMatchObject({ warning: expect.stringContaining("plain http") });
    const secure = await login({ host: "llm.example", "x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.9" });
    expect(secure.cookie).toMatch(/^__Host-panel=.*; Secure$/);
    expect(secure.body).not.toHaveProperty("warning");
  });

  it("is guarded against guessing as every login is", async () => {
    const { response } = await logIn("alice", "wrong", { ...sameOrigin, "x-forwarded-for": "198.51.100.7" });
    expect([response.status, response.headers.get("set-cookie")]).toEqual([401, null]);
    for (let i = 0; i < 5; i++) await logIn("alice", "wrong", { ...sameOrigin, "x-forwarded-for": "198.51.100.7" });
    const blocked = await logIn("alice", alicePassword, { ...sameOrigin, "x-forwarded-for": "198.51.100.7" });
    expect(blocked.response.status).toBe(429);
    const unlocked = await post(`${proxy.url}/admin/users/alice/unlock`, {}, bearer(admin));
    expect(unlocked.ok).toBe(true);
  });

  it("can be framed by nobody, errors included", async () => {
    for (const path of ["/panel/", "/panel/users", "/panel/api/me", "/panel/assets/none.js", "/panel/api/none"]) {
      const { headers } = await fetch(`${proxy.url}${path}`);
      expect(headers.get("content-security-policy"), path).toContain("frame-ancestors 'none'");
      expect(headers.get("x-frame-options"), path).toBe("DENY");
      expect(headers.get("access-control-allow-origin"), path).toBeNull();
    }
  });
});

describe("a session of the panel", () => {
  it("is over after panel.session_seconds, survives a restart until then, and is nothing if the panel is off", async () => {
    const first = await startProxy({});
    const login = await post(
      `${first.url}/panel/api/login`,
      { username: "alice", password: alicePassword },
      sameOrigin,
    );
    const cookie = (login.headers.get("set-cookie") ?? "").split(";", 1)[0] ?? "";
    await first.stop();
    const statusAfter = async (config: string): Promise<number> => {
      const proxy = await startProxy({ folder: first.folder, config });
      const { status } = await fetch(`${proxy.url}/auth/quota`, { headers: { cookie } });
      await proxy.stop();
      return status;
    };
    expect(await statusAfter("")).toBe(200);
    expect(await statusAfter("[panel]\nenabled = false\n")).toBe(401);
    await first.dispose();
  });
});

/** fetch sets Host itself. */
async function rawLogin(url: string, headers: Record<string, string>) {
  return new Promise<{ cookie: string; body: unknown }>((resolve, reject) => {
    const request = httpRequest(
      `${url}/panel/api/login`,
      { method: "POST", headers: { "content-type": "application/json", ...headers } },
      (response) => {
        let text = "";
        response.on("data", (piece: Buffer) => (text += piece.toString()));
        response.on("end", () => {
          resolve({ cookie: response.headers["set-cookie"]?.[0] ?? "", body: JSON.parse(text) as unknown });
        });
      },
    );
    request.on("error", reject);
    request.end(JSON.stringify({ username: "alice", password: alicePassword }));
  });
}
