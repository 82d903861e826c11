import { randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";
import type { Account } from "../../src/accounts/account-schema.ts";
import { createLogin } from "../../src/accounts/login.ts";
import { createPasswords } from "../../src/accounts/password.ts";
import type { ProxyEvent } from "../../src/events/types.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { createFakeHasher, fakeHash, until } from "./support.ts";

const password = "correct horse";
const bob: Account = {
  username: "bob",
  password_hash: fakeHash(password),
  quota_tier: "basic",
  roles: ["user"],
  is_active: true,
  token_version: 1,
  metadata: {},
};

async function useLogin({ reuseSeconds = 10, maxWaiting = 50, lifeSeconds = 900, rehash = true, opens = true } = {}) {
  const accounts = new Map([["bob", bob]]);
  const clock = createManualClock(Date.UTC(2026, 10, 22));
  const log = createCapturedLog();
  const fake = createFakeHasher();
  const events: ProxyEvent[] = [];
  /** Ids of sessions that are over or whose first refresh token has been used. */
  const touched = new Set<string>();
  const passwords = await createPasswords({ maxHashes: 2, maxWaiting, hasher: fake.hasher });
  const login = createLogin({
    store: {
      get: (name) => accounts.get(name),
      rehash: (name, _old, password_hash) => {
        if (!rehash) return Promise.reject(new Error("read-only"));
        accounts.set(name, { ...bob, password_hash });
        return Promise.resolve();
      },
    },
    passwords,
    clock,
    log,
    sessions: { isUntouched: (id) => !touched.has(id) },
    pairs: {
      open: (account) => {
        const expiresAt = clock.now() + lifeSeconds * 1000;
        const tokens = { token: randomUUID(), expiresAt, refreshToken: randomUUID(), refreshExpiresAt: Infinity };
        return opens
          ? Promise.resolve({ account, sessionId: randomUUID(), ...tokens })
          : Promise.reject(new Error("planted"));
      },
    },
    reuseSeconds,
    emit: (event) => events.push(event),
  });
  const attempt = (username: string, given: string, { ip = "10.0.0.1", client = "curl" } = {}) =>
    login({ username, password: given, origin: { ip, client, traceId: "t" } });
  return { accounts, clock, log, ...fake, events, attempt, touched };
}

describe("login", () => {
  it("gives the account and a token, and says so in an event", async () => {
    const { attempt, events, clock } = await useLogin();
    const result = await attempt("bob", password);
    expect(result).toMatchObject({ account: bob, token: expect.any(String), expiresAt: clock.now() + 900_000 });
    expect(events).toEqual([{ type: "login.succeeded", at: clock.now(), traceId: "t", ip: "10.0.0.1", user: "bob" }]);
  });

  it("answers an unknown user and a wrong password with the same error after the same work", async () => {
    const { attempt, calls } = await useLogin();
    const errors: unknown[] = [];
    for (const [name, given] of [["eve", password] as const, ["bob", "wrong password"] as const]) {
      const before = calls.verify;
      await attempt(name, given).catch((error: unknown) => errors.push(error));
      expect(calls.verify).toBe(before + 1);
    }
    expect(errors).toHaveLength(2);
    expect(errors[0]).toMatchObject({ code: "invalid_credentials", status: 401 });
    expect(errors[1]).toEqual(errors[0]);
  });

  it("tells a disabled user of it only for the right password", async () => {
    const { attempt, accounts, calls } = await useLogin();
    await attempt("bob", password);
    accounts.set("bob", { ...bob, is_active: false });
    await expect(attempt("bob", "wrong password")).rejects.toMatchObject({ code: "invalid_credentials" });
    await expect(attempt("bob", password)).rejects.toMatchObject({ code: "account_disabled", status: 403 });
    expect(calls.verify).toBe(3);
  });

  it("tells a banned, an expired and a future user why, for the right password", async () => {
    const { attempt, accounts, clock } = await useLogin();
    const [before, after] = [new Date(clock.now() - 1), new Date(clock.now() + 1)];
    for (const [reason, fields] of [
      ["expired", { expires_at: before }],
      ["not_yet_active", { active_from: after }],
      ["banned", { banned_until: after, ban_reason: "spam" }],
    ] as const) {
      accounts.set("bob", { ...bob, ...fields });
      await expect(attempt("bob", "wrong password")).rejects.toMatchObject({ code: "invalid_credentials" });
      await expect(attempt("bob", password)).rejects.toMatchObject({
        code: "account_disabled",
        extras: { details: { reason } },
      });
    }
  });

  it("refuses a login that is repeated after the account has expired", async () => {
    const { attempt, accounts, clock } = await useLogin();
    accounts.set("bob", { ...bob, expires_at: new Date(clock.now() + 1000) });
    await attempt("bob", password);
    clock.advance(1000);
    await expect(attempt("bob", password)).rejects.toMatchObject({ code: "account_disabled" });
  });

  it("reports each failure once, without the password", async () => {
    const { attempt, accounts, events } = await useLogin();
    accounts.set("dan", { ...bob, username: "dan", is_active: false });
    for (const [name, given] of [
      ["bob", "planted-wrong"],
      ["eve", "planted-wrong"],
      ["dan", password],
      ["../planted-name", "planted-wrong"],
    ] as const) {
      await expect(attempt(name, given)).rejects.toThrow();
    }
    expect(events).toMatchObject([
      { type: "login.failed", user: "bob", known: true, result: "failure", reason: "invalid_credentials" },
      { type: "login.failed", user: "eve", known: false, result: "failure", reason: "invalid_credentials" },
      { type: "login.failed", user: "dan", known: true, result: "failure", reason: "account_disabled" },
      { type: "login.failed", user: "", known: false, result: "failure", reason: "invalid_request" },
    ]);
    expect(JSON.stringify(events)).not.toMatch(/planted|correct horse/);
  });

  it("refuses what can't be a user name with 400, before any hashing", async () => {
    const { attempt, calls } = await useLogin();
    for (const name of ["Bob", "../bob", "bob\0", "", "__proto__"]) {
      await expect(attempt(name, password)).rejects.toMatchObject({ code: "invalid_request", status: 400 });
    }
    expect(calls.verify).toBe(0);
  });

  it("refuses an overlong password like a wrong one, even if it begins like a known one", async () => {
    const { attempt, accounts } = await useLogin();
    accounts.set("bob", { ...bob, password_hash: fakeHash("x".repeat(1024)) });
    await attempt("bob", "x".repeat(1024));
    await expect(attempt("bob", "x".repeat(1025))).rejects.toMatchObject({ code: "invalid_credentials" });
    await expect(attempt("bob", "x".repeat(2000))).rejects.toMatchObject({ code: "invalid_credentials" });
  });
});

describe("parallel logins", () => {
  it("of one user with one password share one verification and one token", async () => {
    const { attempt, calls, hold, events } = await useLogin();
    const release = hold();
    const all = Array.from({ length: 20 }, () => attempt("bob", password));
    release();
    const tokens = new Set((await Promise.all(all)).map(({ token }) => token));
    expect(tokens.size).toBe(1);
    expect(calls.verify).toBe(1);
    expect(events).toHaveLength(20);
  });

  it("with different passwords are verified each, and a wrong one gains nothing from a right one", async () => {
    const { attempt, calls } = await useLogin();
    const results = await Promise.allSettled([attempt("bob", password), attempt("bob", "wrong password")]);
    expect(results.map(({ status }) => status)).toEqual(["fulfilled", "rejected"]);
    expect(calls.verify).toBe(2);
  });

  it("past the queue are refused as busy, and reported as blocked", async () => {
    const { attempt, hold, events } = await useLogin({ maxWaiting: 3 });
    const release = hold();
    const all = Array.from({ length: 20 }, (_, index) => attempt("bob", `wrong password ${index}`));
    const settled = Promise.allSettled(all);
    await until(() => {
      expect(events).toHaveLength(15);
    });
    expect(events).toMatchObject(
      Array.from({ length: 15 }, () => ({ type: "login.failed", result: "blocked", reason: "login_busy" })),
    );
    release();
    await settled;
    expect(await attempt("bob", password)).toMatchObject({ account: bob });
  });

  it("fail where the password was changed while it was being verified", async () => {
    const { attempt, accounts, calls, hold } = await useLogin();
    const release = hold();
    const running = attempt("bob", password);
    await until(() => {
      expect(calls.running).toBe(1);
    });
    accounts.set("bob", { ...bob, password_hash: fakeHash("another one") });
    release();
    await expect(running).rejects.toMatchObject({ code: "invalid_credentials" });
  });
});

describe("a repeated login", () => {
  it("gets the same token without hashing, until the time is over", async () => {
    const { attempt, calls, clock } = await useLogin();
    const first = await attempt("bob", password);
    clock.advance(9_999);
    expect(await attempt("bob", password)).toEqual(first);
    expect(calls.verify).toBe(1);
    clock.advance(1);
    expect((await attempt("bob", password)).token).not.toBe(first.token);
    expect(calls.verify).toBe(2);
  });

  it("from another address, or by another program, gets tokens of its own", async () => {
    const { attempt } = await useLogin();
    const all = [
      await attempt("bob", password),
      await attempt("bob", password, { ip: "10.0.0.2" }),
      await attempt("bob", password, { client: "firefox" }),
    ];
    expect(new Set(all.map(({ refreshToken }) => refreshToken)).size).toBe(3);
  });

  it("gets tokens of its own once the session is over or its refresh token has been used", async () => {
    const { attempt, touched } = await useLogin();
    const first = await attempt("bob", password);
    touched.add(first.sessionId);
    expect((await attempt("bob", password)).sessionId).not.toBe(first.sessionId);
  });

  it("is tried anew where no session could be opened", async () => {
    const { attempt, calls } = await useLogin({ opens: false });
    await expect(attempt("bob", password)).rejects.toThrow("planted");
    await expect(attempt("bob", password)).rejects.toThrow("planted");
    expect(calls.verify).toBe(2);
  });

  it("with another password is verified", async () => {
    const { attempt, calls } = await useLogin();
    await attempt("bob", password);
    await expect(attempt("bob", "wrong password")).rejects.toMatchObject({ code: "invalid_credentials" });
    expect(calls.verify).toBe(2);
  });

  it("is verified anew after any change of the account", async () => {
    const { attempt, accounts, calls } = await useLogin();
    const first = await attempt("bob", password);
    accounts.set("bob", { ...bob, token_version: 2 });
    expect((await attempt("bob", password)).token).not.toBe(first.token);
    expect(calls.verify).toBe(2);
    accounts.set("bob", { ...bob, password_hash: fakeHash("another one") });
    await expect(attempt("bob", password)).rejects.toMatchObject({ code: "invalid_credentials" });
  });

  it("never gets a token with less than half of its life left", async () => {
    const { attempt, clock } = await useLogin({ reuseSeconds: 3600, lifeSeconds: 900 });
    const first = await attempt("bob", password);
    clock.advance(449_999);
    expect((await attempt("bob", password)).token).toBe(first.token);
    clock.advance(1);
    expect((await attempt("bob", password)).token).not.toBe(first.token);
  });

  it("gets a token of its own where reuse is off", async () => {
    const { attempt, calls } = await useLogin({ reuseSeconds: 0 });
    const tokens = [await attempt("bob", password), await attempt("bob", password)].map(({ token }) => token);
    expect(new Set(tokens).size).toBe(2);
    expect(calls.verify).toBe(2);
  });
});

describe("a hash weaker than today's", () => {
  const weak = { ...bob, password_hash: fakeHash(password, "m=4096,t=1,p=1") };

  it("is replaced at the next right login", async () => {
    const { attempt, accounts } = await useLogin();
    accounts.set("bob", weak);
    await expect(attempt("bob", "wrong password")).rejects.toThrow();
    expect(accounts.get("bob")).toBe(weak);
    const { account } = await attempt("bob", password);
    expect(account.password_hash).toBe(fakeHash(password));
    expect(accounts.get("bob")).toBe(account);
  });

  it("does for now where the file cannot be written", async () => {
    const { attempt, accounts, log } = await useLogin({ rehash: false });
    accounts.set("bob", weak);
    expect((await attempt("bob", password)).account).toBe(weak);
    expect(log.lines).toMatchObject([{ level: "warn", facts: { user: "bob" } }]);
    expect(JSON.stringify(log.lines)).not.toContain(password);
  });
});
