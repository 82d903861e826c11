import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { ask, jsonOf, logIn, refresh, statusOf } from "../support/accounts.ts";
import { eventually } from "../support/eventually.ts";
import { createManualClock } from "../support/manual-clock.ts";
import {
  alicePassword,
  bearer,
  post,
  startProxy,
  userFile,
  type ProxyOptions,
  type RunningProxy,
} from "../support/start-proxy.ts";

interface Listed {
  readonly sessions: readonly {
    readonly id: string;
    readonly current: boolean;
    readonly client: string;
    readonly ip: string;
  }[];
}

describe("a session", () => {
  let proxy: RunningProxy;

  afterEach(() => proxy.dispose());

  const start = async (options: ProxyOptions = {}): Promise<RunningProxy> => (proxy = await startProxy(options));
  const alice = (client?: string) => logIn(proxy, "alice", alicePassword, client);
  const listed = async (token: string) => (await ask<Listed>(proxy, "GET /auth/sessions", token)).body.sessions;

  it("goes on by refresh tokens", async () => {
    await start({ clock: createManualClock(Math.floor(Date.now() / 1000) * 1000) });
    const first = await alice();
    expect(first).toMatchObject({ expires_in: 900, refresh_expires_in: 604_800, token_type: "Bearer" });
    expect(first).not.toHaveProperty("password_change_required");
    const { status, body } = await refresh(proxy, first.refresh_token);
    expect(status).toBe(200);
    expect(Object.keys(body).sort()).toEqual(Object.keys(first).sort());
    expect(body.refresh_token).not.toBe(first.refresh_token);
    expect([await statusOf(proxy, first.token), await statusOf(proxy, body.token)]).toEqual([200, 200]);
    expect(await listed(body.token)).toMatchObject([{ current: true, client: "test", ip: "127.0.0.1" }]);
  });

  it("is lost by none of 50 clients that refresh at once", async () => {
    await start();
    const { refresh_token } = await alice();
    const answers = await Promise.all(Array.from({ length: 50 }, () => refresh(proxy, refresh_token)));
    expect(answers.map(({ status }) => status)).toEqual(Array(50).fill(200));
    expect(new Set(answers.map(({ body }) => body.refresh_token)).size).toBe(1);
    const statuses = await Promise.all(answers.map(({ body }) => statusOf(proxy, body.token)));
    expect(statuses).toEqual(Array(50).fill(200));
    expect(await listed(answers[0]?.body.token ?? "")).toHaveLength(1);
    expect((await refresh(proxy, answers[0]?.body.refresh_token ?? "")).status).toBe(200);
  });

  it("is over for thief and owner when an old token comes back, and operators hear of it", async () => {
    const clock = createManualClock(Date.now());
    await start({ clock });
    const owner = await alice();
    const thief = owner.refresh_token;
    const next = await refresh(proxy, owner.refresh_token);
    clock.advance(10_000);
    expect(await refresh(proxy, thief)).toMatchObject({ status: 401, body: { error: { code: "invalid_token" } } });
    expect((await refresh(proxy, next.body.refresh_token)).status).toBe(401);
    expect([await statusOf(proxy, owner.token), await statusOf(proxy, next.body.token)]).toEqual([401, 401]);
    const logs = join(proxy.folder, "logs", "users", "alice");
    await eventually(async () => {
      const files = await Promise.all((await readdir(logs)).map((file) => readFile(join(logs, file), "utf8")));
      expect(files.join("")).toContain('"event":"session.reuse_detected"');
    });
    expect(proxy.logLines.join("")).toContain("session.reuse_detected");
  });

  it("ends with a logout, its access tokens with it", async () => {
    await start();
    const { token, refresh_token } = await alice();
    const other = await alice("other");
    expect((await jsonOf(post(`${proxy.url}/auth/logout`, { refresh_token }))).status).toBe(204);
    expect((await refresh(proxy, refresh_token)).status).toBe(401);
    expect([await statusOf(proxy, token), await statusOf(proxy, other.token)]).toEqual([401, 200]);
    expect((await jsonOf(post(`${proxy.url}/auth/logout`, { refresh_token }))).status).toBe(204);
    expect((await jsonOf(post(`${proxy.url}/auth/logout`, {}))).body.error).toMatchObject({ param: "refresh_token" });
  });

  it("is not brought back by a login that repeats the one that was logged out", async () => {
    await start();
    const first = await alice();
    await post(`${proxy.url}/auth/logout`, { refresh_token: first.refresh_token });
    const second = await alice();
    expect(second.refresh_token).not.toBe(first.refresh_token);
    expect(await statusOf(proxy, second.token)).toBe(200);
  });

  it("is one for a login that is repeated at once, and another for another program", async () => {
    await start();
    const all = [await alice("a"), await alice("a"), await alice("b")].map(({ refresh_token }) => refresh_token);
    expect(all[1]).toBe(all[0]);
    expect(all[2]).not.toBe(all[0]);
  });

  it("can be ended from another one, and nobody else's can", async () => {
    await start({ users: { alice: userFile("alice", alicePassword), bob: userFile("bob", "another password") } });
    const [phone, laptop] = [await alice("phone"), await alice("laptop")];
    const bob = await logIn(proxy, "bob", "another password");
    const lost = (await listed(laptop.token)).find(({ client }) => client === "phone")?.id ?? "";
    expect(await ask(proxy, `DELETE /auth/sessions/${lost}`, bob.token)).toMatchObject({ status: 404 });
    expect(await ask(proxy, `DELETE /auth/sessions/${lost}`, laptop.token)).toEqual({ status: 204, body: {} });
    expect(await Promise.all([phone, laptop, bob].map(({ token }) => statusOf(proxy, token)))).toEqual([401, 200, 200]);
  });

  it("ends with all others by logout-all", async () => {
    await start();
    const all = [await alice("a"), await alice("b")];
    expect((await ask(proxy, "POST /auth/logout-all", all[0]?.token ?? "")).status).toBe(204);
    expect(await Promise.all(all.map(({ token }) => statusOf(proxy, token)))).toEqual([401, 401]);
    expect(await Promise.all(all.map(async (one) => (await refresh(proxy, one.refresh_token)).status))).toEqual([
      401, 401,
    ]);
    expect(await statusOf(proxy, (await alice("a")).token)).toBe(200);
  });

  it("lives on over a restart", async () => {
    const first = await start();
    const { token, refresh_token } = await alice();
    await first.stop();
    await start({ folder: first.folder });
    expect(await statusOf(proxy, token)).toBe(200);
    expect((await refresh(proxy, refresh_token)).status).toBe(200);
  });

  it("stops while its user is banned or past the end, on the next request, and says why", async () => {
    const clock = createManualClock(Date.now());
    await start({ clock });
    const { token, refresh_token } = await alice();
    const until = new Date(clock.now() + 60_000);
    await proxy.services.users.update("alice", { banned_until: until, ban_reason: "spam" });
    const details = { reason: "banned", at: until.toISOString(), ban_reason: "spam" };
    const refused = { status: 403, body: { error: { code: "account_disabled", details } } };
    expect(await ask(proxy, "GET /auth/quota", token)).toMatchObject(refused);
    expect(await refresh(proxy, refresh_token)).toMatchObject(refused);
    clock.advance(60_000);
    expect(await statusOf(proxy, token)).toBe(200);
    await proxy.services.users.update("alice", { expires_at: new Date(clock.now() + 1000) });
    expect(await statusOf(proxy, token)).toBe(200);
    clock.advance(1000);
    expect(await statusOf(proxy, token)).toBe(403);
  });

  it("leaves user files with dates that mean nothing certain out, and says why", async () => {
    await start({
      users: {
        alice: userFile("alice", alicePassword),
        bob: userFile("bob", "some password", "expires_at = 2026-12-31\n"),
      },
    });
    const answer = await jsonOf(post(`${proxy.url}/auth/login`, { username: "bob", password: "some password" }));
    expect(answer.status).toBe(401);
    expect(proxy.logLines.join("")).toContain("expected a date and time with an offset");
  });

  it("needs a refresh token of the right shape", async () => {
    await start();
    for (const body of [{}, { refresh_token: 1 }, { refresh_token: "x".repeat(300) }]) {
      expect((await jsonOf(post(`${proxy.url}/auth/refresh`, body))).status).toBe(400);
    }
    const { token } = await alice();
    expect((await refresh(proxy, token.slice(0, 200))).status).toBe(401);
    expect(await jsonOf(fetch(`${proxy.url}/auth/sessions`, { headers: bearer("dsr_x") }))).toMatchObject({
      status: 401,
    });
  });
});
