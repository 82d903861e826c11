import { describe, expect, it } from "vitest";
import {
  clientSecret,
  createTestBrowser,
  startIssuer,
  type TestBrowser,
  type TestIssuer,
} from "../support/oidc-issuer.ts";
import { always, logIn, meOf, rootPassword, setUpOidc, start } from "../support/oidc-proxy.ts";
import { alicePassword, bearer, post, type RunningProxy } from "../support/start-proxy.ts";

async function admin(proxy: RunningProxy) {
  const token = await proxy.login("root", rootPassword);
  return async (method: string, path: string, body?: unknown) => {
    const response = await fetch(`${proxy.url}${path}`, {
      method,
      headers: { ...bearer(token), ...(body === undefined ? {} : { "content-type": "application/json" }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    return { status: response.status, body: (text === "" ? undefined : JSON.parse(text)) as never };
  };
}

/** Sends a change as the panel does, with the cookie. */
async function asPanel(proxy: RunningProxy, browser: TestBrowser, method: string, path: string) {
  return fetch(`${proxy.url}${path}`, {
    method,
    headers: { cookie: browser.header(proxy.url), "sec-fetch-site": "same-origin" },
  });
}

describe("a login through an identity provider", () => {
  it("makes a user by rule, opens a session, and goes to the page that was asked for", async () => {
    const { issuer, proxy } = await setUpOidc({ rules: `${always}tier = "basic"` });
    issuer.claims.set("u-1", { preferred_username: "Zoe.Miller@example.com" });
    const browser = createTestBrowser();
    const { url } = await browser.go(start(proxy, "/panel/usage?by=day"), { login: "u-1" });
    expect(url).toBe(`${proxy.url}/panel/usage?by=day`);
    expect(await meOf(proxy, browser)).toMatchObject({ user: "zoe-miller", roles: ["user"] });
    const session = browser.cookies(proxy.url).get("__Host-panel");
    // Again, in the same browser: another session, and the first one has ended.
    await browser.go(start(proxy));
    expect(browser.cookies(proxy.url).get("__Host-panel")).not.toBe(session);
    const old = await fetch(`${proxy.url}/panel/api/me`, { headers: { cookie: `__Host-panel=${session}` } });
    expect(old.status).toBe(401);
    expect([...browser.cookies(proxy.url).keys()]).toEqual(["__Host-panel"]);
    // The same person under another name is the same user.
    issuer.claims.set("u-1", { preferred_username: "someone-else" });
    expect((await logIn(proxy, "u-1")).me.user).toBe("zoe-miller");
    expect(proxy.logLines.join("")).not.toContain(clientSecret);
    const asked = await fetch(`${proxy.url}/panel/api/oidc`);
    expect(await asked.json()).toEqual({
      password_login: "all",
      registration: "off",
      issuers: [{ name: "work", title: "Our company" }],
    });
  });

  it("takes nobody in by a name: not an existing one, and none where users are not made", async () => {
    const { issuer, proxy, reload } = await setUpOidc({ rules: always });
    issuer.claims.set("stranger", { preferred_username: "root", email: "root@example.com" });
    expect(await logIn(proxy, "stranger")).toMatchObject({
      path: "/panel/?login_error=oidc_name_taken",
      me: { error: { code: "missing_token" } },
    });
    issuer.claims.set("nameless", {});
    expect((await logIn(proxy, "nameless")).path).toBe("/panel/?login_error=oidc_no_account");
    issuer.claims.set("new", { preferred_username: "newcomer" });
    for (const rules of [
      "",
      'create_users = "matched"\n[[oidc.groups]]\nclaim = "groups"\nvalue = "x"\ngroup = "lab"\n',
    ]) {
      await reload(rules);
      expect((await logIn(proxy, "new")).path).toBe("/panel/?login_error=oidc_no_account");
    }
    expect(await proxy.services.users.get("newcomer")).toBeUndefined();
    const refusals = proxy.logLines
      .map((line) => JSON.parse(line) as { msg: string; sub?: string; issuer?: string; reason?: string })
      .filter(({ msg }) => msg === "a new user got no account");
    expect(refusals.map(({ issuer: name, sub, reason }) => [name, sub, reason])).toEqual([
      ["work", "stranger", "the name root is that of a user: who has that account links the login on the Account page"],
      ["work", "nameless", "preferred_username gives no user name that can be used here"],
      ["work", "new", "create_users is never, and no account is linked"],
      ["work", "new", "none of the rules for roles and groups fits"],
    ]);
  });

  it("gives nobody a name with which something would come: of a group, a service, or somebody who has left", async () => {
    const { issuer, proxy } = await setUpOidc({
      rules: always,
      config: '[groups.lab]\nmembers = ["zoe"]\nowners = ["olga"]',
    });
    const call = await admin(proxy);
    await call("POST", "/admin/users", { username: "former", password: "another long password" });
    const chat = { model: "sim-fast", stream: false, messages: [{ role: "user", content: "hi" }] };
    const token = await proxy.login("former", "another long password");
    expect((await post(`${proxy.url}/v1/chat/completions`, chat, bearer(token))).status).toBe(200);
    await call("DELETE", "/admin/users/former");
    for (const name of ["zoe", "olga", "svc-lab", "former"]) {
      issuer.claims.set(`is-${name}`, { preferred_username: name });
      expect((await logIn(proxy, `is-${name}`)).path, name).toBe("/panel/?login_error=oidc_name_taken");
      expect(await proxy.services.users.get(name)).toBeUndefined();
    }
    expect(proxy.logLines.join("")).toContain("the name zoe is that of a group: to let them in");
  });

  it("gives the roles and groups of its rules at each login, and takes them away; without the claim there are none", async () => {
    const rules = `create_users = "matched"
[[oidc.roles]]
claim = "realm_access.roles"
value = "proxy-admin"
role = "admin"
[[oidc.groups]]
claim = "groups"
value = "/research"
group = "research"
`;
    const { issuer, proxy } = await setUpOidc({ rules, issuer: await startIssuer({ claimsInIdToken: true }) });
    const call = await admin(proxy);
    expect((await call("POST", "/admin/groups", { name: "research" })).status).toBe(201);
    const matched = { realm_access: { roles: ["x", "proxy-admin"] }, groups: ["/research", "/all"] };
    issuer.claims.set("nobody", { preferred_username: "nobody", groups: [] });
    expect((await logIn(proxy, "nobody")).path).toBe("/panel/?login_error=oidc_no_account");
    issuer.claims.set("u-2", { preferred_username: "carol", ...matched });
    expect((await logIn(proxy, "u-2")).me).toMatchObject({ user: "carol", roles: ["admin"], groups: ["research"] });
    issuer.claims.set("u-2", { preferred_username: "carol" });
    expect((await logIn(proxy, "u-2")).me).toMatchObject({ user: "carol", roles: ["user"], groups: [] });
    // The last admin stays one, whatever the issuer says.
    issuer.claims.set("u-2", { preferred_username: "carol", ...matched });
    await logIn(proxy, "u-2");
    expect((await call("PATCH", "/admin/users/root", { roles: ["user"] })).status).toBe(200);
    issuer.claims.delete("u-2");
    expect((await logIn(proxy, "u-2")).me).toMatchObject({ user: "carol", roles: ["admin"], groups: [] });
  });

  it("lets people in also while a group of its rules is full, without it", async () => {
    const rules = `${always}[[oidc.groups]]\nclaim = "groups"\nvalue = "/lab"\ngroup = "lab"\n`;
    const { issuer, proxy } = await setUpOidc({ rules, issuer: await startIssuer({ claimsInIdToken: true }) });
    const call = await admin(proxy);
    // 10,000 members are the most.
    const half = Array.from({ length: 5000 }, (_, index) => `m${index}`);
    const groups = { a: half, b: half.map((name) => `${name}b`), lab: ["@a", "@b"] };
    for (const [name, members] of Object.entries(groups)) await call("POST", "/admin/groups", { name, members });
    issuer.claims.set("u-9", { preferred_username: "ivy", groups: ["/lab"] });
    expect((await logIn(proxy, "u-9")).me).toMatchObject({ user: "ivy", groups: [] });
    await call("PATCH", "/admin/groups/lab", { members: [] });
    expect((await logIn(proxy, "u-9")).me).toMatchObject({ user: "ivy", groups: ["lab"] });
  });

  it("links to an account from within it, and unlinks", async () => {
    const { issuer, proxy } = await setUpOidc();
    issuer.claims.set("u-3", { preferred_username: "whoever" });
    const browser = createTestBrowser();
    const login = await post(`${proxy.url}/panel/api/login`, { username: "alice", password: alicePassword });
    const [, cookie = ""] = /^__Host-panel=([^;]+)/.exec(login.headers.get("set-cookie") ?? "") ?? [];
    browser.setCookie(proxy.url, "__Host-panel", cookie);
    const refused = await fetch(`${proxy.url}/panel/api/oidc/work/link`, {
      method: "POST",
      headers: { cookie: browser.header(proxy.url), "sec-fetch-site": "cross-site" },
    });
    expect(refused.status).toBe(403);
    const begun = await asPanel(proxy, browser, "POST", "/panel/api/oidc/work/link");
    for (const set of begun.headers.getSetCookie()) {
      const [pair = ""] = set.split(";");
      browser.setCookie(proxy.url, pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1));
    }
    const { location } = (await begun.json()) as { location: string };
    // In a browser with another session nothing is linked.
    const other = createTestBrowser();
    other.setCookie(proxy.url, "__Host-panel-oidc", browser.cookies(proxy.url).get("__Host-panel-oidc") ?? "");
    expect((await other.go(location, { login: "u-3" })).url).toBe(
      `${proxy.url}/panel/account?login_error=oidc_expired`,
    );
    expect((await browser.go(location, { login: "u-3" })).url).toBe(`${proxy.url}/panel/account`);
    expect((await logIn(proxy, "u-3")).me.user).toBe("alice");

    const list = await asPanel(proxy, browser, "GET", "/panel/api/oidc/logins");
    const { logins } = (await list.json()) as { logins: { id: string; name: string; sub: string }[] };
    expect(logins).toMatchObject([{ name: "work", sub: "u-3" }]);
    const path = `/panel/api/oidc/logins/${logins[0]?.id ?? ""}`;
    expect((await asPanel(proxy, browser, "DELETE", path)).status).toBe(204);
    expect((await asPanel(proxy, browser, "DELETE", path)).status).toBe(404);
    expect((await logIn(proxy, "u-3")).path).toBe("/panel/?login_error=oidc_no_account");
  });

  it("keeps out who is disabled or banned, and ends the links of an archived user", async () => {
    const { issuer, proxy } = await setUpOidc({ rules: always });
    issuer.claims.set("u-4", { preferred_username: "dave" });
    const call = await admin(proxy);
    expect((await logIn(proxy, "u-4")).me.user).toBe("dave");
    await call("PATCH", "/admin/users/dave", { is_active: false });
    expect((await logIn(proxy, "u-4")).path).toBe("/panel/?login_error=account_disabled");
    await call("PATCH", "/admin/users/dave", { is_active: true, banned_until: "2099-01-01T00:00:00Z" });
    expect((await logIn(proxy, "u-4")).path).toBe("/panel/?login_error=account_disabled");
    await call("DELETE", "/admin/users/dave");
    expect(await proxy.services.externalLogins.ofUser("dave")).toEqual([]);
    // A new account of the name is not theirs.
    await call("POST", "/admin/users", { username: "dave", password: "another long password" });
    expect((await logIn(proxy, "u-4")).path).toBe("/panel/?login_error=oidc_name_taken");
  });

  it("takes keys that the issuer has replaced, and claims that are in userinfo only", async () => {
    const { issuer, proxy } = await setUpOidc({ rules: always });
    issuer.claims.set("u-5", { preferred_username: "erin" });
    expect((await logIn(proxy, "u-5")).me.user).toBe("erin");
    issuer.open(`${proxy.url}/panel/api/oidc/work/callback`);
    expect((await logIn(proxy, "u-5")).me.user).toBe("erin");
  });
});

describe("an attack on it", () => {
  /** Goes through the issuer, and stops before the callback. */
  async function upToCallback(proxy: RunningProxy, issuer: TestIssuer) {
    issuer.claims.set("u-1", { preferred_username: "zoe" });
    const browser = createTestBrowser();
    const { url } = await browser.go(start(proxy), { login: "u-1", stopAt: "/callback" });
    return { browser, url };
  }
  const expired = "/panel/?login_error=oidc_expired";
  const failed = "/panel/?login_error=oidc_failed";
  const pathOf = async (proxy: RunningProxy, browser: TestBrowser, url: string) =>
    (await browser.go(url)).url.slice(proxy.url.length);

  /** Changes what the browser remembers of the login. */
  function tamper(proxy: RunningProxy, browser: TestBrowser, change: Readonly<Record<string, unknown>>): void {
    const name = "__Host-panel-oidc";
    const kept = JSON.parse(
      Buffer.from(browser.cookies(proxy.url).get(name) ?? "", "base64url").toString(),
    ) as object[];
    const changed = kept.map((one) => ({ ...one, ...change }));
    browser.setCookie(proxy.url, name, Buffer.from(JSON.stringify(changed)).toString("base64url"));
  }

  it("fails without the browser's own state, with another nonce or verifier, too late, and a second time", async () => {
    const { issuer, proxy } = await setUpOidc({ rules: always });
    const other = (await upToCallback(proxy, issuer)).url;
    expect(await pathOf(proxy, createTestBrowser(), other)).toBe(expired);
    for (const [change, outcome] of [
      [{ state: "x".repeat(43) }, failed],
      [{ nonce: "x".repeat(43) }, failed],
      [{ verifier: "x".repeat(43) }, failed],
      [{ begun: Math.floor(Date.now() / 1000) - 601 }, expired],
      [{ begun: Math.floor(Date.now() / 1000) + 60 }, expired],
      [{ issuer: "home" }, expired],
    ] as const) {
      const { browser, url } = await upToCallback(proxy, issuer);
      tamper(proxy, browser, change);
      expect(await pathOf(proxy, browser, url)).toBe(outcome);
    }
    const { browser, url } = await upToCallback(proxy, issuer);
    const kept = browser.cookies(proxy.url).get("__Host-panel-oidc") ?? "";
    expect(await pathOf(proxy, browser, url)).toBe("/panel/");
    browser.setCookie(proxy.url, "__Host-panel-oidc", kept);
    expect(await pathOf(proxy, browser, url)).toBe(failed);
    // Another person's answer in a browser that has begun a login of its own.
    const victim = (await upToCallback(proxy, issuer)).browser;
    expect(await pathOf(proxy, victim, (await upToCallback(proxy, issuer)).url)).toBe(failed);
  });

  it("fails with an answer that names another issuer, and with errors of the issuer", async () => {
    const { issuer, proxy } = await setUpOidc({ rules: always });
    const mixed = await upToCallback(proxy, issuer);
    const url = new URL(mixed.url);
    expect(url.searchParams.get("iss")).toBe(issuer.url);
    url.searchParams.set("iss", "https://evil.example");
    expect(await pathOf(proxy, mixed.browser, url.href)).toBe(failed);
    const without = await upToCallback(proxy, issuer);
    expect(await pathOf(proxy, without.browser, without.url.replace(/&iss=[^&]*/, ""))).toBe(failed);
    const cancelled = await upToCallback(proxy, issuer);
    const answer = new URL(cancelled.url);
    answer.searchParams.delete("code");
    answer.searchParams.set("error", "access_denied");
    answer.searchParams.set("error_description", "<script>alert(1)</script>");
    expect(await pathOf(proxy, cancelled.browser, answer.href)).toBe("/panel/?login_error=oidc_cancelled");
  });

  it("can't plant a session, nor send the browser elsewhere", async () => {
    const { issuer, proxy } = await setUpOidc({ rules: always });
    issuer.claims.set("u-1", { preferred_username: "zoe" });
    const attacker = await post(`${proxy.url}/panel/api/login`, { username: "alice", password: alicePassword });
    const [, planted = ""] = /^__Host-panel=([^;]+)/.exec(attacker.headers.get("set-cookie") ?? "") ?? [];
    const browser = createTestBrowser();
    browser.setCookie(proxy.url, "__Host-panel", planted);
    expect((await logIn(proxy, "u-1", browser)).me.user).toBe("zoe");
    expect(browser.cookies(proxy.url).get("__Host-panel")).not.toBe(planted);
    for (const then of [
      "//evil.example/",
      "https://evil.example/panel/",
      "/\\evil.example",
      "/panel/../evil",
      "/panel/\r\nx: y",
    ]) {
      const { url } = await browser.go(start(proxy, then));
      expect(url).toBe(`${proxy.url}/panel/`);
    }
  });

  it("counts for its address, as guesses of passwords do", async () => {
    const { issuer, proxy } = await setUpOidc({
      rules: always,
      config: "[security]\nlogin_exempt_addresses = []\nlogin_free_failures = 2\nlogin_first_wait_seconds = 600\n",
    });
    // Any page can send its visitors here with a state of its own.
    for (let tries = 0; tries < 4; tries++) {
      const { browser, url } = await upToCallback(proxy, issuer);
      expect(await pathOf(proxy, browser, url.replace(/state=[^&]*/, "state=made-up"))).toBe(failed);
    }
    for (let failures = 0; failures < 2; failures++) {
      const { browser, url } = await upToCallback(proxy, issuer);
      tamper(proxy, browser, { nonce: "x".repeat(43) });
      expect(await pathOf(proxy, browser, url)).toBe(failed);
    }
    expect((await logIn(proxy, "u-1")).path).toBe("/panel/?login_error=login_blocked");
    expect((await post(`${proxy.url}/auth/login`, { username: "alice", password: alicePassword })).status).toBe(429);
  });
});

describe("an identity provider that is down", () => {
  it("fails its own logins only", async () => {
    const issuer = await startIssuer({ keep: true });
    const { proxy } = await setUpOidc({ rules: always, issuer });
    await issuer.close();
    expect((await logIn(proxy, "u-1")).path).toBe("/panel/?login_error=oidc_unavailable");
    expect(await proxy.login()).toEqual(expect.any(String));
  });
});

describe("passwords that are switched off", () => {
  it("log nobody in, not even admins, here or in the panel", async () => {
    const { issuer, proxy } = await setUpOidc({ rules: always, config: '[security]\npassword_login = "off"\n' });
    for (const path of ["/auth/login", "/panel/api/login"]) {
      for (const [username, password] of [
        ["root", rootPassword],
        ["nobody", "any"],
      ]) {
        const response = await post(`${proxy.url}${path}`, { username, password });
        expect(response.status).toBe(403);
        expect(await response.json()).toMatchObject({ error: { code: "password_login_off" } });
      }
    }
    issuer.claims.set("u-1", { preferred_username: "zoe" });
    const { browser } = await logIn(proxy, "u-1");
    // The only way in can't be taken away.
    const list = await asPanel(proxy, browser, "GET", "/panel/api/oidc/logins");
    const { logins } = (await list.json()) as { logins: { id: string }[] };
    const path = `/panel/api/oidc/logins/${logins[0]?.id ?? ""}`;
    expect((await asPanel(proxy, browser, "DELETE", path)).status).toBe(409);
  });

  it("log admins in alone", async () => {
    const { issuer, proxy } = await setUpOidc({ rules: always, config: '[security]\npassword_login = "admins"\n' });
    const root = { username: "root", password: rootPassword };
    const alice = { username: "alice", password: alicePassword };
    const codeOf = async (path: string, body: object): Promise<unknown> => {
      const response = await post(`${proxy.url}${path}`, body);
      return [response.status, ((await response.json()) as { error?: { code: string } }).error?.code];
    };
    expect(await codeOf("/auth/login", root)).toEqual([200, undefined]);
    expect(await codeOf("/auth/login", alice)).toEqual([403, "password_login_off"]);
    expect(await codeOf("/auth/login", { ...alice, password: "wrong" })).toEqual([401, "invalid_credentials"]);
    issuer.claims.set("u-1", { preferred_username: "zoe" });
    expect((await logIn(proxy, "u-1")).me.user).toBe("zoe");
  });
});
