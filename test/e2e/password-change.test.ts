import { afterEach, describe, expect, it } from "vitest";
import { ask, jsonOf, logIn, refresh, statusOf, type JsonAnswer, type Tokens } from "../support/accounts.ts";
import { alicePassword, bearer, post, startProxy, type RunningProxy } from "../support/start-proxy.ts";

const newPassword = "a fresh set of words";

describe("changing one's password", () => {
  let proxy: RunningProxy;

  afterEach(() => proxy.dispose());

  const alice = (password = alicePassword, client?: string) => logIn(proxy, "alice", password, client);
  const change = (token: string, current_password: string, new_password: string): Promise<JsonAnswer<Tokens>> =>
    jsonOf(post(`${proxy.url}/auth/password`, { current_password, new_password }, bearer(token)));

  it("ends all sessions and tokens but for the new pair that it answers with", async () => {
    proxy = await startProxy();
    const [here, there] = [await alice(alicePassword, "here"), await alice(alicePassword, "there")];
    const { status, body } = await change(here.token, alicePassword, newPassword);
    expect(status).toBe(200);
    const tokens = [here.token, there.token, body.token];
    expect(await Promise.all(tokens.map((token) => statusOf(proxy, token)))).toEqual([401, 401, 200]);
    expect((await refresh(proxy, there.refresh_token)).status).toBe(401);
    expect((await refresh(proxy, body.refresh_token)).status).toBe(200);
    const old = post(`${proxy.url}/auth/login`, { username: "alice", password: alicePassword });
    expect((await jsonOf(old)).status).toBe(401);
    expect(await statusOf(proxy, (await alice(newPassword)).token)).toBe(200);
    expect(proxy.logLines.join("")).toContain("password.changed");
  });

  it("takes the current password, and a good new one", async () => {
    proxy = await startProxy();
    const { token } = await alice();
    expect(await change(token, "a wrong password", newPassword)).toMatchObject({
      status: 403,
      body: { error: { code: "forbidden", param: "current_password" } },
    });
    for (const weak of ["short", "", "password123", "QWERTY123", "x".repeat(1025), alicePassword]) {
      expect(await change(token, alicePassword, weak)).toMatchObject({
        status: 400,
        body: { error: { code: "invalid_request", param: "new_password" } },
      });
    }
    expect(await statusOf(proxy, token)).toBe(200);
    expect(proxy.logLines.join("")).not.toContain(alicePassword);
  });

  it("is all that a one-time password is good for", async () => {
    proxy = await startProxy();
    await proxy.services.users.update("alice", { password: "one-time words", must_change_password: true });
    const tokens = await alice("one-time words");
    expect(tokens.password_change_required).toBe(true);
    const refused = { status: 403, body: { error: { code: "password_change_required" } } };
    const chat = { model: "sim-fast", messages: [{ role: "user", content: "hi" }] };
    expect(await jsonOf(post(`${proxy.url}/v1/chat/completions`, chat, bearer(tokens.token)))).toMatchObject(refused);
    for (const route of ["GET /auth/quota", "GET /v1/models", "GET /auth/keys", "GET /auth/sessions"]) {
      expect(await ask(proxy, route, tokens.token), route).toMatchObject(refused);
    }
    expect((await refresh(proxy, tokens.refresh_token)).body).toMatchObject({ password_change_required: true });
    const { status, body } = await change(tokens.token, "one-time words", newPassword);
    expect(status).toBe(200);
    expect(body).not.toHaveProperty("password_change_required");
    expect(await statusOf(proxy, body.token)).toBe(200);
    expect(await proxy.services.users.get("alice")).not.toHaveProperty("must_change_password");
  });
});
