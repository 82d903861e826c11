import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { logIn, statusOf } from "../support/accounts.ts";
import { goodPassword, startAdminProxy, type AdminProxy } from "../support/admin-users.ts";
import { rawRequest, sendRaw } from "../support/raw-http.ts";

const json = "Content-Type: application/json";

describe("a request whose body comes late", () => {
  let proxy: AdminProxy;

  beforeAll(async () => {
    proxy = await startAdminProxy();
  });

  afterAll(() => proxy.dispose());

  /** Sends the head of a request; the function that it returns sends the body. */
  async function begin(path: string, body: object, token: string) {
    const text = JSON.stringify(body);
    const head = [`Authorization: Bearer ${token}`, json, `Content-Length: ${text.length}`];
    const connection = sendRaw(proxy.url, rawRequest(`POST ${path}`, head));
    // A whole request of another connection comes after that head.
    expect(await statusOf(proxy, token)).toBe(200);
    return async () => {
      connection.socket.write(text);
      const answer = await connection.answer();
      connection.socket.destroy();
      const { error } = JSON.parse(answer.body) as { error?: { code: string } };
      return [answer.status, error?.code];
    };
  }

  it("gives a removed user nothing of a new one of the same name", async () => {
    await proxy.add("heir");
    const { token } = await logIn(proxy, "heir", goodPassword);
    const chat = { model: "deepseek-flash", messages: [{ role: "user", content: "hi" }] };
    const late = [await begin("/auth/keys", { name: "late" }, token), await begin("/chat/completions", chat, token)];
    expect((await proxy.send("DELETE /admin/users/heir")).status).toBe(204);
    expect((await proxy.add("heir")).status).toBe(201);
    for (const send of late) expect(await send()).toEqual([401, "invalid_token"]);
    expect((await proxy.send("GET /admin/users/heir/keys")).body).toEqual({ keys: [] });
    expect((await proxy.send("GET /admin/users/heir/quota")).body).toMatchObject({ limits: [{ used: 0 }] });
  });

  it("makes no key that outlives a new password", async () => {
    await proxy.add("robbed");
    const { token } = await logIn(proxy, "robbed", goodPassword);
    const send = await begin("/auth/keys", { name: "late" }, token);
    expect((await proxy.send("POST /admin/users/robbed/reset-password")).status).toBe(200);
    expect(await send()).toEqual([401, "invalid_token"]);
    expect((await proxy.send("GET /admin/users/robbed/keys")).body).toEqual({ keys: [] });
  });

  it("changes nothing for others once its admin is none any more", async () => {
    await proxy.add("second", { roles: ["user", "admin"] });
    const { token } = await logIn(proxy, "second", goodPassword);
    const send = await begin("/admin/users", { username: "planted", roles: ["admin"] }, token);
    expect((await proxy.send("PATCH /admin/users/second", { roles: ["user"] })).status).toBe(200);
    expect(await send()).toEqual([403, "forbidden"]);
    expect((await proxy.send("GET /admin/users/planted")).status).toBe(404);
  });
});
