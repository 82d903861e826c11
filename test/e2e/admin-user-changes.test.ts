import { readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ask, jsonOf, logIn, refresh, statusOf } from "../support/accounts.ts";
import { goodPassword, startAdminProxy, type AdminProxy, type UserAnswer } from "../support/admin-users.ts";
import { eventually } from "../support/eventually.ts";
import { bearer, post } from "../support/start-proxy.ts";

describe("changes of users by the admin API", () => {
  let proxy: AdminProxy;

  beforeAll(async () => {
    proxy = await startAdminProxy();
  });

  afterAll(() => proxy.dispose());

  it("make no secret that is shown once where the audit log can't be written", async () => {
    await proxy.add("kept");
    const etag = await proxy.etagOf("kept");
    const audit = join(proxy.folder, "logs", "audit");
    await rename(audit, `${audit}.aside`);
    await writeFile(audit, "no folder");
    const code = { name: "spring", metric: "requests", per: "month", amount: 5 };
    const refused = [
      await proxy.send("POST /admin/users", { username: "never" }),
      await proxy.send("POST /admin/users/kept/reset-password", {}),
      await proxy.send("POST /admin/users/kept/keys", { name: "never" }),
      await proxy.send("POST /admin/codes", code),
    ];
    await rm(audit);
    await rename(`${audit}.aside`, audit);
    expect(refused.map(({ status, body }) => [status, body.error?.code])).toEqual(
      refused.map(() => [503, "storage_unavailable"]),
    );
    expect((await proxy.send("GET /admin/users/never")).status).toBe(404);
    expect(await proxy.etagOf("kept")).toBe(etag);
    expect((await proxy.send("GET /admin/users/kept/keys")).body).toEqual({ keys: [] });
    expect((await proxy.send("GET /admin/codes")).body).toMatchObject({ codes: [] });
    expect((await proxy.send("POST /admin/codes", code)).status).toBe(201);
  });

  it("are changed by one of two admins who have read the same", async () => {
    await proxy.add("raced");
    const etag = await proxy.etagOf("raced");
    const patches = [{ max_parallel: 2 }, { max_parallel: 3 }];
    const answers = await Promise.all(
      patches.map((patch) => proxy.send("PATCH /admin/users/raced", patch, { "if-match": etag })),
    );
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 412]);
    const won = patches[answers.findIndex(({ status }) => status === 200)];
    expect((await proxy.send("GET /admin/users/raced")).body).toMatchObject(won ?? {});
    expect(answers.find(({ status }) => status === 412)?.body.error?.code).toBe("precondition_failed");
    for (const route of ["PATCH /admin/users/raced", "DELETE /admin/users/raced"]) {
      expect((await proxy.send(route, route.startsWith("P") ? {} : undefined, { "if-match": etag })).status).toBe(412);
    }
    expect(
      (
        await proxy.send(
          "POST /admin/users/raced/reset-password",
          {},
          { "if-match": `W/${await proxy.etagOf("raced")}` },
        )
      ).status,
    ).toBe(412);
    expect((await logIn(proxy, "raced", goodPassword)).token).toBeTypeOf("string");
    const both = `"x", ${await proxy.etagOf("raced")}`;
    expect((await proxy.send("PATCH /admin/users/raced", { max_parallel: 4 }, { "if-match": both })).status).toBe(200);
    expect((await proxy.send("PATCH /admin/users/raced", { max_parallel: 5 }, { "if-match": "*" })).status).toBe(200);
    expect((await proxy.send("PATCH /admin/users/raced", { max_parallel: 6 })).status).toBe(200);
    expect(await proxy.audited("raced")).toHaveLength(5);
  });

  it("have an entity tag that a new password and an edit by hand change, and time does not", async () => {
    await proxy.add("tagged", { expires_at: "2099-01-01T00:00:00Z" });
    const first = await proxy.etagOf("tagged");
    expect(first).toMatch(/^"[\w-]{22}"$/);
    expect(await proxy.etagOf("tagged")).toBe(first);
    await proxy.send("POST /admin/users/tagged/reset-password");
    const second = await proxy.etagOf("tagged");
    await proxy.send("POST /admin/users/tagged/reset-password");
    expect(new Set([first, second, await proxy.etagOf("tagged")]).size).toBe(3);
  });

  it("feel a change with their next request", async () => {
    const { token } = (await proxy.add("felt"), await logIn(proxy, "felt", goodPassword));
    const outcome = async () => {
      const { status, body } = await ask<{ error?: { details?: { reason: string } } }>(proxy, "GET /auth/quota", token);
      return [status, body.error?.code, body.error?.details?.reason];
    };
    expect(await outcome()).toEqual([200, undefined, undefined]);
    await proxy.send("PATCH /admin/users/felt", { banned_until: "2099-01-01T00:00:00Z", ban_reason: "spam" });
    expect(await outcome()).toEqual([403, "account_disabled", "banned"]);
    await proxy.send("PATCH /admin/users/felt", { banned_until: null });
    expect((await proxy.send("GET /admin/users/felt")).body).toMatchObject({ state: "active", ban_reason: null });
    expect(await outcome()).toEqual([200, undefined, undefined]);
    await proxy.send("PATCH /admin/users/felt", { active_from: "2099-01-01T00:00:00Z" });
    expect(await outcome()).toEqual([403, "account_disabled", "not_yet_active"]);
    await proxy.send("PATCH /admin/users/felt", { active_from: null, expires_at: "2020-01-01T00:00:00Z" });
    expect(await outcome()).toEqual([403, "account_disabled", "expired"]);
    await proxy.send("PATCH /admin/users/felt", { expires_at: null });
    const get = (path: string) => ask(proxy, `GET ${path}`, token);
    expect((await get("/admin/users")).status).toBe(403);
    await proxy.send("PATCH /admin/users/felt", { roles: ["auditor"] });
    expect((await get("/admin/users")).status).toBe(200);
    await proxy.send("PATCH /admin/users/felt", { roles: ["user"] });
    expect((await get("/admin/users")).status).toBe(403);
    await proxy.send("PATCH /admin/users/felt", { is_active: false });
    expect(await outcome()).toEqual([403, "account_disabled", "disabled"]);
    await proxy.send("PATCH /admin/users/felt", { is_active: true });
    expect(await outcome()).toEqual([401, "invalid_token", undefined]);
  });

  it("get a one-time password that ends what was before", async () => {
    await proxy.add("reset");
    const old = await logIn(proxy, "reset", goodPassword);
    const answer = await post(`${proxy.url}/admin/users/reset/reset-password`, {}, bearer(proxy.admin));
    expect([answer.status, answer.headers.get("cache-control")]).toEqual([200, "no-store"]);
    const { password: made = "" } = (await answer.json()) as UserAnswer;
    const chosen = { password: "chosen by the admin" };
    expect((await proxy.send("POST /admin/users/reset/reset-password", chosen)).body.error?.param).toBe("password");
    expect(await statusOf(proxy, old.token)).toBe(401);
    expect((await refresh(proxy, old.refresh_token)).status).toBe(401);
    await expect(logIn(proxy, "reset", goodPassword)).rejects.toThrow("invalid_credentials");
    expect((await logIn(proxy, "reset", made)).password_change_required).toBe(true);
    expect(proxy.logLines.join("")).not.toContain(made);
  });

  it("are archived: gone at once, and whoever gets the name anew starts without their keys", async () => {
    await proxy.add("leaver");
    const { token, refresh_token } = await logIn(proxy, "leaver", goodPassword);
    const { key } = (await jsonOf<{ key: string }>(post(`${proxy.url}/auth/keys`, { name: "k" }, bearer(token)))).body;
    const used = { requests: 1, tokens: 0, cost: 0, currency: "CNY" };
    await proxy.services.ledger.adjust("leaver", used, { reason: "test", by: "test" });
    expect((await proxy.send("DELETE /admin/users/leaver")).status).toBe(204);
    const dead = async () => [
      await statusOf(proxy, token),
      await statusOf(proxy, key),
      (await refresh(proxy, refresh_token)).status,
    ];
    expect(await dead()).toEqual([401, 401, 401]);
    expect((await proxy.send("GET /admin/users/leaver")).status).toBe(404);
    expect((await proxy.send("DELETE /admin/users/leaver")).status).toBe(404);
    // Over Redis, the folder follows.
    await eventually(async () => {
      const files = await readdir(join(proxy.folder, "users"));
      expect(files.filter((file) => file.startsWith("leaver.") && !file.includes("quota"))).toEqual([]);
      const [folder = ""] = await readdir(join(proxy.folder, "users", ".archive"));
      expect(folder).toMatch(/^leaver-\d{8}T\d{6}Z-/);
      expect((await readdir(join(proxy.folder, "users", ".archive", folder))).sort()).toEqual([
        "leaver.keys.toml",
        "leaver.sessions.toml",
        "leaver.toml",
      ]);
    });
    await proxy.add("leaver");
    expect(await dead()).toEqual([401, 401, 401]);
    const again = (await logIn(proxy, "leaver", goodPassword)).token;
    expect((await ask<{ keys: unknown[] }>(proxy, "GET /auth/keys", again)).body.keys).toEqual([]);
    // What was used stays with the name: to be made anew is no way to a fresh quota.
    const { body } = await ask<{ limits: { used: number }[] }>(proxy, "GET /auth/quota", again);
    expect(body.limits[0]?.used).toBe(1);
  });

  it("always have an admin left", async () => {
    const refused = { status: 409, body: { error: { code: "conflict" } } };
    const ways = [{ roles: ["user"] }, { is_active: false }, { banned_until: "2099-01-01T00:00:00Z" }];
    for (const patch of [...ways, { expires_at: "2020-01-01T00:00:00Z" }]) {
      expect(await proxy.send("PATCH /admin/users/root", patch), JSON.stringify(patch)).toMatchObject(refused);
    }
    expect(await proxy.send("DELETE /admin/users/root")).toMatchObject(refused);
    await proxy.add("second", { roles: ["admin"] });
    const second = (await logIn(proxy, "second", goodPassword)).token;
    const answers = await Promise.all([
      proxy.send("PATCH /admin/users/root", { roles: ["user"] }, {}, second),
      proxy.send("PATCH /admin/users/second", { roles: ["user"] }),
    ]);
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 409]);
    const left = answers[0].status === 200 ? { by: second, lost: "root" } : { by: proxy.admin, lost: "second" };
    expect(
      (await proxy.send(`PATCH /admin/users/${left.lost}`, { roles: ["user", "admin"] }, {}, left.by)).status,
    ).toBe(200);
  });

  it("leave a line for each change: who, from where, what before and after", async () => {
    await proxy.add("traced", { max_parallel: 2 });
    await proxy.send(
      "PATCH /admin/users/traced",
      { max_parallel: 3, is_active: true },
      { "x-request-id": "my-request-1" },
    );
    await proxy.send("PATCH /admin/users/traced", { max_parallel: 3 });
    await proxy.send("PATCH /admin/users/traced", {
      banned_until: "2099-01-01T00:00:00Z",
      ban_reason: 'line\nbreak "x"',
    });
    await proxy.send("POST /admin/users/traced/reset-password");
    await proxy.send("DELETE /admin/users/traced");
    const lines = await proxy.audited("traced");
    const common = { event: "admin.changed", by: "root", ip: "127.0.0.1", user: "traced" };
    expect(lines).toMatchObject([
      { ...common, action: "user.created", before: null, after: { quota_tier: "basic", max_parallel: 2 } },
      { ...common, action: "user.changed", before: { max_parallel: 2 }, after: { max_parallel: 3 } },
      {
        ...common,
        action: "user.changed",
        reason: 'line\nbreak "x"',
        before: { banned_until: null, ban_reason: null },
      },
      { ...common, action: "user.password_reset", after: { must_change_password: true } },
      { ...common, action: "user.archived", before: { quota_tier: "basic" }, after: null },
    ]);
    expect(lines[1]).toMatchObject({ trace_id: "my-request-1" });
    expect(Object.keys(lines[1]?.after ?? {})).toEqual(["max_parallel"]);
    expect(JSON.stringify(lines)).not.toMatch(/argon2|password_hash|token_version/);
  });
});
