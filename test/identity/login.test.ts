import { describe, expect, it } from "vitest";
import { bob, password, useLogin } from "./login-support.ts";
import { fakeHash } from "./support.ts";

describe("login", () => {
  it("gives the account and a token, and says so in an event", async () => {
    const { attempt, events, clock } = useLogin();
    const result = await attempt("bob", password);
    expect(result).toMatchObject({ account: bob, token: expect.any(String), expiresAt: clock.now() + 900_000 });
    expect(events).toEqual([{ type: "login.succeeded", at: clock.now(), traceId: "t", ip: "10.0.0.1", user: "bob" }]);
  });

  it("opens another session for each browser, after the same checks", async () => {
    const { attemptWithCookie, accounts, events, calls } = useLogin();
    const cookies = await Promise.all([attemptWithCookie(password), attemptWithCookie(password)]);
    expect(new Set(cookies.map(({ cookie }) => cookie)).size).toBe(2);
    expect(calls.verify).toBe(1);
    await expect(attemptWithCookie("wrong password")).rejects.toMatchObject({ code: "invalid_credentials" });
    accounts.set("bob", { ...bob, is_active: false });
    await expect(attemptWithCookie(password)).rejects.toMatchObject({ code: "account_disabled" });
    expect(events.map(({ type }) => type)).toEqual([
      "login.succeeded",
      "login.succeeded",
      "login.failed",
      "login.failed",
    ]);
  });

  it("answers an unknown user and a wrong password with the same error after the same work", async () => {
    const { attempt, calls } = useLogin();
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
    const { attempt, accounts, calls } = useLogin();
    await attempt("bob", password);
    accounts.set("bob", { ...bob, is_active: false });
    await expect(attempt("bob", "wrong password")).rejects.toMatchObject({ code: "invalid_credentials" });
    await expect(attempt("bob", password)).rejects.toMatchObject({ code: "account_disabled", status: 403 });
    expect(calls.verify).toBe(3);
  });

  it("tells a banned, an expired and a future user why, for the right password", async () => {
    const { attempt, accounts, clock } = useLogin();
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
    const { attempt, accounts, clock } = useLogin();
    accounts.set("bob", { ...bob, expires_at: new Date(clock.now() + 1000) });
    await attempt("bob", password);
    clock.advance(1000);
    await expect(attempt("bob", password)).rejects.toMatchObject({ code: "account_disabled" });
  });

  it("reports each failure once, without the password", async () => {
    const { attempt, accounts, events } = useLogin();
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
    const { attempt, calls } = useLogin();
    for (const name of ["Bob", "../bob", "bob\0", "", "__proto__"]) {
      await expect(attempt(name, password)).rejects.toMatchObject({ code: "invalid_request", status: 400 });
    }
    expect(calls.verify).toBe(0);
  });

  it("refuses an overlong password like a wrong one, even if it begins like a known one", async () => {
    const { attempt, accounts } = useLogin();
    accounts.set("bob", { ...bob, password_hash: fakeHash("x".repeat(1024)) });
    await attempt("bob", "x".repeat(1024));
    await expect(attempt("bob", "x".repeat(1025))).rejects.toMatchObject({ code: "invalid_credentials" });
    await expect(attempt("bob", "x".repeat(2000))).rejects.toMatchObject({ code: "invalid_credentials" });
  });
});
