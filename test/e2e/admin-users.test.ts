import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { logIn } from "../support/accounts.ts";
import { goodPassword, startAdminProxy, type AdminProxy, type UserAnswer } from "../support/admin-users.ts";
import { bearer, post, userFile } from "../support/start-proxy.ts";

const odd = `[metadata]
since = 2024-05-01
seen = 2024-05-01T10:00:00+08:00
big = 9007199254740993
ratio = inf
"a \\"quoted\\"\\nkey" = "x = \\"]\\"\\n[y]"
`;

describe("the users of the admin API", () => {
  let proxy: AdminProxy;

  beforeAll(async () => {
    const audrey = userFile("audrey", goodPassword, 'roles = ["auditor"]\n');
    proxy = await startAdminProxy({ audrey, odd: userFile("odd", goodPassword, odd) });
  });

  afterAll(() => proxy.dispose());

  it("are made with a one-time password, which is shown once and must be changed", async () => {
    const answer = await post(`${proxy.url}/admin/users`, { username: "new1", roles: ["user"] }, bearer(proxy.admin));
    expect(answer.status).toBe(201);
    expect(answer.headers.get("cache-control")).toBe("no-store");
    expect(answer.headers.get("location")).toBe("/admin/users/new1");
    const made = (await answer.json()) as UserAnswer;
    expect(made).toMatchObject({ username: "new1", quota_tier: "basic", state: "active", must_change_password: true });
    expect(answer.headers.get("etag")).toBe(await proxy.etagOf("new1"));
    const tokens = await logIn(proxy, "new1", made.password ?? "");
    expect(tokens.password_change_required).toBe(true);
    const shown = await proxy.send("GET /admin/users/new1");
    expect(shown.body).not.toHaveProperty("password");
    expect(JSON.stringify(shown.body)).not.toMatch(/hash|argon2/);
  });

  it("are made with a password that somebody chose, if it is a good one", async () => {
    const { status, body } = await proxy.add("chosen", {
      quota_tier: "pro",
      metadata: { team: "sales", n: [1, { a: true }] },
    });
    expect(status).toBe(201);
    expect(body).toMatchObject({ quota_tier: "pro", metadata: { team: "sales", n: [1, { a: true }] } });
    expect(body).not.toHaveProperty("password");
    expect((await logIn(proxy, "chosen", goodPassword)).password_change_required).toBeUndefined();
    for (const weak of ["short", "password123", "x".repeat(1025), "chosen-2"]) {
      expect(await proxy.send("POST /admin/users", { username: "chosen-2", password: weak })).toMatchObject({
        status: 400,
        body: { error: { code: "invalid_request", param: "password" } },
      });
    }
    expect((await proxy.add("chosen")).body.error).toMatchObject({ code: "conflict", param: "username" });
  });

  it("are changed field by field, and null takes a field away", async () => {
    await proxy.add("patched", { max_parallel: 3 });
    const limits = [{ metric: "requests", per: "day", max: 7 }];
    const grants = [{ metric: "requests", per: "day", amount: 2, until: "2099-01-01", reason: "exam" }];
    const patch = {
      quota_tier: "premium",
      limits,
      grants,
      expires_at: "2099-12-31T18:00:00+08:00",
      max_parallel: null,
    };
    expect(await proxy.send("PATCH /admin/users/patched", patch)).toMatchObject({
      status: 200,
      body: { quota_tier: "premium", limits, grants, expires_at: "2099-12-31T10:00:00.000Z", max_parallel: null },
    });
    const cleared = { limits: null, grants: null, expires_at: null, metadata: null, roles: null };
    expect((await proxy.send("PATCH /admin/users/patched", cleared)).body).toMatchObject({
      limits: [],
      grants: [],
      expires_at: null,
      roles: ["user"],
    });
    expect(await proxy.send("PATCH /admin/users/patched", {})).toMatchObject({ status: 200 });
  });

  it.each([
    [{ quota_tier: "gold" }, "quota_tier"],
    [{ quota_tier: null }, "quota_tier"],
    [{ roles: ["king"] }, "roles.0"],
    [{ roles: [] }, "roles"],
    [{ max_parallel: 0 }, "max_parallel"],
    [{ expires_at: "tomorrow" }, "expires_at"],
    [{ expires_at: "2099-01-01T00:00:00" }, "expires_at"],
    [{ limits: [{ metric: "requests", per: "day", max: -1 }] }, "limits.0.max"],
    [{ grants: [{ metric: "requests", per: "day", amount: 1.5 }] }, "grants.0.amount"],
    [{ metadata: { a: null } }, "metadata"],
    [{ metadata: "x" }, "metadata"],
    [{ nickname: "x" }, "nickname"],
    [{ username: "other" }, "username"],
    [{ password: "another password" }, "password"],
    [{ password_hash: "x" }, "password_hash"],
    [{ token_version: 1 }, "token_version"],
  ])("are not changed by %j, and the answer names the field", async (patch, param) => {
    await proxy.add("steady");
    const { body: before } = await proxy.send("GET /admin/users/steady");
    const { status, body } = await proxy.send("PATCH /admin/users/steady", { is_active: false, ...patch });
    expect([status, body.error?.code, body.error?.param]).toEqual([400, "invalid_request", param]);
    expect((await proxy.send("GET /admin/users/steady")).body).toEqual(before);
    expect((await proxy.send("POST /admin/users", { username: "never", ...patch, password: "short" })).status).toBe(
      400,
    );
  });

  it("are not changed to something that their file has no room for", async () => {
    await proxy.add("crammed");
    const { status, body } = await proxy.send("PATCH /admin/users/crammed", { metadata: { a: "x".repeat(1 << 20) } });
    expect([status, body.error?.code]).toEqual([413, "body_too_large"]);
  });

  it("are listed page by page, searched and filtered", async () => {
    for (const name of ["list-b", "list-a", "list-c"])
      await proxy.add(name, { quota_tier: name === "list-c" ? "pro" : "basic" });
    await proxy.send("PATCH /admin/users/list-b", { is_active: false });
    const list = async (query: string): Promise<{ names: readonly string[]; next: string | null }> => {
      const { body } = await proxy.send<{ users: UserAnswer[]; next_cursor: string | null }>(
        `GET /admin/users?${query}`,
      );
      return { names: body.users.map(({ username }) => username), next: body.next_cursor };
    };
    expect(await list("search=LIST-")).toEqual({ names: ["list-a", "list-b", "list-c"], next: null });
    expect(await list("search=list-&limit=2")).toEqual({ names: ["list-a", "list-b"], next: "list-b" });
    expect(await list("search=list-&limit=2&cursor=list-b")).toEqual({ names: ["list-c"], next: null });
    expect(await list("search=list-&tier=pro")).toEqual({ names: ["list-c"], next: null });
    expect(await list("search=list-&state=disabled")).toEqual({ names: ["list-b"], next: null });
    expect(await list("role=auditor")).toEqual({ names: ["audrey"], next: null });
    for (const bad of ["limit=0", "limit=501", "cursor=../x", "role=king", "state=odd", "order=name"]) {
      expect((await proxy.send(`GET /admin/users?${bad}`)).status, bad).toBe(400);
    }
  });

  it("are shown with whatever their files hold", async () => {
    const { status, body } = await proxy.send("GET /admin/users/odd");
    expect(status).toBe(200);
    expect(body.metadata).toEqual({
      since: "2024-05-01",
      seen: "2024-05-01T10:00:00.000+08:00",
      big: "9007199254740993",
      ratio: "Infinity",
      'a "quoted"\nkey': 'x = "]"\n[y]',
    });
    await proxy.send("PATCH /admin/users/odd", { max_parallel: 2 });
    expect(await readFile(join(proxy.folder, "users", "odd.toml"), "utf8")).toContain(odd);
  });

  it("may be read by auditors and changed by nobody but admins", async () => {
    await proxy.add("watched");
    const { token } = await logIn(proxy, "watched", goodPassword);
    const auditor = (await logIn(proxy, "audrey", goodPassword)).token;
    const routes = [
      ["GET /admin/users", 200],
      ["GET /admin/users/watched", 200],
      ["POST /admin/users", 403],
      ["PATCH /admin/users/watched", 403],
      ["DELETE /admin/users/watched", 403],
      ["POST /admin/users/watched/reset-password", 403],
    ] as const;
    for (const [route, status] of routes) {
      const body = route.startsWith("GET") ? undefined : {};
      expect((await proxy.send(route, body, {}, auditor)).status, route).toBe(status);
      expect((await proxy.send(route, body, {}, token)).status, route).toBe(403);
    }
  });

  it.each(["..%2fx", "CON", "con", "a%00b", "a.b", "%D0%B0dmin", "x".repeat(33), "%22"])(
    "have no such name as %s",
    async (name) => {
      for (const [method, body] of [
        ["GET", undefined],
        ["PATCH", {}],
        ["DELETE", undefined],
      ] as const) {
        expect([400, 404]).toContain((await proxy.send(`${method} /admin/users/${name}`, body)).status);
      }
      const { status, body } = await proxy.add(decodeURIComponent(name));
      expect([status, body.error?.param]).toEqual([400, "username"]);
    },
  );

  it("have no empty or endless name either", async () => {
    for (const name of ["", "x".repeat(10_000)]) {
      // A slash at the end is ignored: without a name it is the list of all.
      if (name !== "") expect([400, 404]).toContain((await proxy.send(`GET /admin/users/${name}`)).status);
      expect((await proxy.add(name)).body.error?.param).toBe("username");
    }
    expect((await proxy.send("POST /admin/users", {})).body.error?.param).toBe("username");
  });
});
