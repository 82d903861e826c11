import { describe, expect, it } from "vitest";
import { bob, password, useLogin } from "./login-support.ts";
import { fakeHash, until } from "./support.ts";

describe("parallel logins", () => {
  it("of one user with one password share one verification and one token", async () => {
    const { attempt, calls, hold, events } = useLogin();
    const release = hold();
    const all = Array.from({ length: 20 }, () => attempt("bob", password));
    release();
    const tokens = new Set((await Promise.all(all)).map(({ token }) => token));
    expect(tokens.size).toBe(1);
    expect(calls.verify).toBe(1);
    expect(events).toHaveLength(20);
  });

  it("with different passwords are verified each, and a wrong one gains nothing from a right one", async () => {
    const { attempt, calls } = useLogin();
    const results = await Promise.allSettled([attempt("bob", password), attempt("bob", "wrong password")]);
    expect(results.map(({ status }) => status)).toEqual(["fulfilled", "rejected"]);
    expect(calls.verify).toBe(2);
  });

  it("past the queue are refused as busy, and reported as blocked", async () => {
    const { attempt, hold, events } = useLogin({ maxWaiting: 3 });
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
    const { attempt, accounts, calls, hold } = useLogin();
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
    const { attempt, calls, clock } = useLogin();
    const first = await attempt("bob", password);
    clock.advance(9_999);
    expect(await attempt("bob", password)).toEqual(first);
    expect(calls.verify).toBe(1);
    clock.advance(1);
    expect((await attempt("bob", password)).token).not.toBe(first.token);
    expect(calls.verify).toBe(2);
  });

  it("from another address, or by another program, gets tokens of its own", async () => {
    const { attempt } = useLogin();
    const all = [
      await attempt("bob", password),
      await attempt("bob", password, { ip: "10.0.0.2" }),
      await attempt("bob", password, { client: "firefox" }),
    ];
    expect(new Set(all.map(({ refreshToken }) => refreshToken)).size).toBe(3);
  });

  it("gets tokens of its own once the session is over or its refresh token has been used", async () => {
    const { attempt, touched } = useLogin();
    const first = await attempt("bob", password);
    touched.add(first.sessionId);
    expect((await attempt("bob", password)).sessionId).not.toBe(first.sessionId);
  });

  it("is tried anew where no session could be opened", async () => {
    const { attempt, calls } = useLogin({ opens: false });
    await expect(attempt("bob", password)).rejects.toThrow("planted");
    await expect(attempt("bob", password)).rejects.toThrow("planted");
    expect(calls.verify).toBe(2);
  });

  it("with another password is verified", async () => {
    const { attempt, calls } = useLogin();
    await attempt("bob", password);
    await expect(attempt("bob", "wrong password")).rejects.toMatchObject({ code: "invalid_credentials" });
    expect(calls.verify).toBe(2);
  });

  it("is verified anew after any change of the account", async () => {
    const { attempt, accounts, calls } = useLogin();
    const first = await attempt("bob", password);
    accounts.set("bob", { ...bob, token_version: 2 });
    expect((await attempt("bob", password)).token).not.toBe(first.token);
    expect(calls.verify).toBe(2);
    accounts.set("bob", { ...bob, password_hash: fakeHash("another one") });
    await expect(attempt("bob", password)).rejects.toMatchObject({ code: "invalid_credentials" });
  });

  it("never gets a token with less than half of its life left", async () => {
    const { attempt, clock } = useLogin({ reuseSeconds: 3600, lifeSeconds: 900 });
    const first = await attempt("bob", password);
    clock.advance(449_999);
    expect((await attempt("bob", password)).token).toBe(first.token);
    clock.advance(1);
    expect((await attempt("bob", password)).token).not.toBe(first.token);
  });

  it("gets a token of its own where reuse is off", async () => {
    const { attempt, calls } = useLogin({ reuseSeconds: 0 });
    const tokens = [await attempt("bob", password), await attempt("bob", password)].map(({ token }) => token);
    expect(new Set(tokens).size).toBe(2);
    expect(calls.verify).toBe(2);
  });
});

describe("a hash weaker than today's", () => {
  const weak = { ...bob, password_hash: fakeHash(password, "m=4096,t=1,p=1") };

  it("is replaced at the next right login", async () => {
    const { attempt, accounts } = useLogin();
    accounts.set("bob", weak);
    await expect(attempt("bob", "wrong password")).rejects.toThrow();
    expect(accounts.get("bob")).toBe(weak);
    const { account } = await attempt("bob", password);
    expect(account.password_hash).toBe(fakeHash(password));
    expect(accounts.get("bob")).toBe(account);
  });

  it("does for now where the file cannot be written", async () => {
    const { attempt, accounts, log } = useLogin({ rehash: false });
    accounts.set("bob", weak);
    expect((await attempt("bob", password)).account).toBe(weak);
    expect(log.lines).toMatchObject([{ level: "warn", facts: { user: "bob" } }]);
    expect(JSON.stringify(log.lines)).not.toContain(password);
  });
});
