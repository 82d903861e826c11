import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { totpCode } from "../../src/identity/login/second-factor.ts";
import { alicePassword, bearer, post, startProxy, userFile, type ProxyOptions } from "../support/start-proxy.ts";
import { createManualClock } from "../support/manual-clock.ts";

const rootPassword = "roots long password";
const alice = { username: "alice", password: alicePassword };

async function setUp(options: ProxyOptions = {}) {
  const clock = createManualClock(Date.UTC(2026, 10, 22));
  const proxy = await startProxy({
    clock,
    users: {
      alice: userFile("alice", alicePassword),
      root: userFile("root", rootPassword, 'roles = ["admin"]\n'),
    },
    ...options,
  });
  onTestFinished(() => proxy.dispose());
  async function call(method: string, path: string, token: string, body?: unknown) {
    const response = await fetch(`${proxy.url}${path}`, {
      method,
      headers: { ...bearer(token), ...(body === undefined ? {} : { "content-type": "application/json" }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    const parsed = (text === "" ? {} : JSON.parse(text)) as Record<string, unknown> & { error?: { code: string } };
    return { status: response.status, body: parsed, code: parsed.error?.code };
  }
  const logIn = async (body: object, path = "/auth/login") => {
    const response = await post(`${proxy.url}${path}`, body);
    const parsed = (await response.json()) as { error?: { code: string }; token?: string };
    return parsed.error?.code ?? "ok";
  };
  const codeNow = (secret: string, steps = 0): string => totpCode(secret, Math.floor(clock.now() / 30_000) + steps);
  async function enable(user = "alice", password = alicePassword) {
    const token = await proxy.login(user, password);
    const { body } = await call("POST", "/panel/api/second-factor/secret", token);
    const secret = String(body.secret);
    expect(body.uri).toContain(`secret=${secret}&`);
    const wrong = { secret, otp: codeNow(secret, 5) };
    expect((await call("POST", "/panel/api/second-factor", token, wrong)).code).toBe("otp_invalid");
    const set = await call("POST", "/panel/api/second-factor", token, { secret, otp: codeNow(secret) });
    expect(set.status).toBe(200);
    clock.advance(60_000);
    return { token, secret, recovery: set.body.recovery_codes as readonly string[] };
  }
  return { proxy, clock, call, logIn, codeNow, enable };
}

describe("a second factor", () => {
  it("is needed at every login once it is set up, and each code counts once", async () => {
    const { proxy, clock, logIn, codeNow, enable } = await setUp();
    const { secret, recovery } = await enable();
    for (const path of ["/auth/login", "/panel/api/login"]) {
      clock.advance(90_000);
      expect(await logIn(alice, path)).toBe("otp_required");
      expect(await logIn({ ...alice, otp: codeNow(secret, 3) }, path)).toBe("otp_invalid");
      expect(await logIn({ ...alice, otp: codeNow(secret), password: "wrong" }, path)).toBe("invalid_credentials");
      const otp = codeNow(secret);
      const all = await Promise.all(Array.from({ length: 4 }, () => logIn({ ...alice, otp }, path)));
      expect(all.filter((outcome) => outcome === "ok")).toHaveLength(1);
      expect(await logIn({ ...alice, otp: ` ${codeNow(secret, 1).replace(/^.../, "$& ")}` }, path)).toBe("ok");
      // The one before is over: a later code was used.
      expect(await logIn({ ...alice, otp: codeNow(secret, -1) }, path)).toBe("otp_invalid");
    }
    expect(recovery).toHaveLength(10);
    clock.advance(3_600_000);
    expect(await logIn({ ...alice, otp: recovery[3]?.toUpperCase() })).toBe("ok");
    expect(await logIn({ ...alice, otp: recovery[3] })).toBe("otp_invalid");
    // It is in the user's file, digests of the recovery codes too, and nowhere else.
    const file = await readFile(join(proxy.folder, "users", "alice.toml"), "utf8");
    expect(file).toContain(secret);
    expect(file).not.toContain(recovery[4]);
    expect(proxy.logLines.join("")).not.toContain(secret);
  });

  it("slows down guessing codes, counted apart from passwords", async () => {
    const { proxy, clock, call, logIn, codeNow, enable } = await setUp();
    const root = await proxy.login("root", rootPassword);
    const { secret } = await enable();
    // Wrong passwords use up no codes.
    for (let guesses = 0; guesses < 4; guesses++)
      expect(await logIn({ ...alice, password: "wrong" })).toBe("invalid_credentials");
    for (let guesses = 0; guesses < 5; guesses++)
      expect(await logIn({ ...alice, otp: codeNow(secret, 10 + guesses) })).toBe("otp_invalid");
    expect(await logIn({ ...alice, otp: codeNow(secret) })).toBe("login_blocked");
    expect(await logIn(alice)).toBe("login_blocked");
    const refused = await post(`${proxy.url}/auth/login`, alice);
    expect([refused.status, refused.headers.get("retry-after")]).toEqual([429, "1"]);
    // Nor do wrong codes count as wrong passwords, and a right password forgives neither.
    expect(await logIn({ ...alice, password: "wrong" })).toBe("invalid_credentials");
    expect(await logIn({ ...alice, password: "wrong" })).toBe("login_blocked");
    const { body } = await call("GET", "/admin/login-locks", root);
    expect(body.locks).toMatchObject([
      { user: "alice", guesses: "code", failures: 5 },
      { user: "alice", guesses: "password", failures: 5 },
    ]);
    clock.advance(1_000_000);
    expect(await logIn({ ...alice, otp: codeNow(secret) })).toBe("ok");
  });

  it("is removed with password and code, or by an administrator, and is seen by nobody", async () => {
    const { proxy, clock, call, logIn, codeNow, enable } = await setUp();
    const root = await proxy.login("root", rootPassword);
    const { token, secret } = await enable();
    expect((await call("GET", "/panel/api/second-factor", token)).body).toEqual({
      enabled: true,
      recovery_codes_left: 10,
    });
    for (const path of ["/admin/users/alice", "/admin/users?limit=10", "/admin/audit"])
      expect(JSON.stringify((await call("GET", path, root)).body)).not.toMatch(new RegExp(`${secret}|totp|recovery_c`));
    const remove = (body: object) => call("POST", "/panel/api/second-factor/remove", token, body);
    expect((await remove({ current_password: "wrong", otp: codeNow(secret) })).code).toBe("forbidden");
    expect(await remove({ current_password: alicePassword, otp: "000 000" })).toMatchObject({ status: 403 });
    expect((await remove({ current_password: alicePassword, otp: codeNow(secret) })).status).toBe(204);
    expect(await logIn(alice)).toBe("ok");

    await enable();
    expect((await call("GET", "/admin/users/alice", root)).body).toMatchObject({ second_factor: true });
    expect((await call("DELETE", "/admin/users/alice/second-factor?reason=lost%20phone", root)).status).toBe(204);
    expect((await call("GET", "/admin/users/alice", root)).body).toMatchObject({ second_factor: false });
    expect(JSON.stringify((await call("GET", "/admin/audit", root)).body)).toContain('"reason":"lost phone"');
    expect((await call("DELETE", "/admin/users/alice/second-factor", root)).status).toBe(404);
    clock.advance(60_000);
    expect(await logIn(alice)).toBe("ok");
    const { body } = await call("GET", "/admin/audit?user=alice", root);
    expect(JSON.stringify(body)).toContain("user.second_factor_removed");
  });

  it("is demanded of admins where the config says so: nothing else works before, but with API keys", async () => {
    const { proxy, call, enable } = await setUp({ config: '[security]\nrequire_second_factor = "admins"\n' });
    const root = await proxy.login("root", rootPassword);
    for (const path of ["/auth/quota", "/admin/users", "/auth/keys"])
      expect((await call("GET", path, root)).code).toBe("second_factor_required");
    expect((await call("GET", "/panel/api/me", root)).status).toBe(200);
    expect((await call("GET", "/auth/quota", await proxy.login())).status).toBe(200);
    const { token } = await enable("root", rootPassword);
    expect((await call("GET", "/admin/users", token)).status).toBe(200);
  });
});
