import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { createAudit, type Actor } from "../../src/admin/audit.ts";
import { createUserAdmin } from "../../src/admin/user-admin.ts";
import { userEtag } from "../../src/admin/user-view.ts";
import { AppError } from "../../src/errors.ts";
import type { AdminChanged } from "../../src/events/catalogue.ts";
import { accountOf, putUser, useStore, userText, useUsersDir } from "../identity/support.ts";
import { createManualClock } from "../support/manual-clock.ts";

const actor: Actor = { by: "root", ip: "192.0.2.1", traceId: "trace-1" };
const password = "a long enough password";

async function useAdmin(files: Readonly<Record<string, string>> = {}, revokeAll: () => number = () => 0) {
  const usersDir = await useUsersDir();
  for (const [name, lines] of Object.entries(files)) await putUser(usersDir, name, lines);
  const clock = createManualClock(Date.UTC(2026, 10, 22));
  const { store } = await useStore(usersDir, { clock });
  const told: AdminChanged[] = [];
  const done: string[] = [];
  const log = {
    append: (event: AdminChanged) => Promise.resolve(void told.push(event)),
    check: () => Promise.resolve(),
    health: () => ({ lastError: null }),
  };
  const admin = createUserAdmin({
    users: store,
    sessions: {
      endAll: (user) => {
        done.push(`sessions of ${user}, who ${store.get(user) === undefined ? "is gone" : "is there"}`);
        return Promise.resolve(1);
      },
    },
    apiKeys: { revokeAll },
    externalLogins: { unlinkAll: () => undefined },
    audit: createAudit({ log, emit: () => undefined, clock }),
    tierNames: () => ["basic", "premium"],
    stepNames: () => ["careful", "trusting"],
    config: () => ({ quota: { currency: "CNY" }, models: { prices: [{ currency: "CNY" }] } }),
    clock,
  });
  return { usersDir, clock, store, admin, told, done };
}

describe("a user admin", () => {
  it("pins nobody to a trust step that there is not, and leaves one from before a change of the config", async () => {
    const { admin, store } = await useAdmin({ alice: 'trust_step = "former"' });
    const refusal = { code: "invalid_request", extras: { param: "trust_step" } };
    await expect(admin.patch(actor, "alice", { trust_step: "trustng" })).rejects.toMatchObject(refusal);
    await expect(admin.create(actor, { username: "carl", trust_step: "trustng" })).rejects.toMatchObject(refusal);
    expect(store.get("carl")).toBeUndefined();
    expect(await admin.patch(actor, "alice", { max_parallel: 2, trust_step: "former" })).toMatchObject({
      max_parallel: 2,
      trust_step: "former",
    });
    expect(await admin.patch(actor, "alice", { trust_step: "trusting" })).toMatchObject({ trust_step: "trusting" });
  });

  it("gives no limit in a currency that no price is in, and leaves one from before a change of the prices", async () => {
    const { admin, store } = await useAdmin({
      alice: 'limits = [{ metric = "cost", per = "day", max = 1, currency = "USD" }]',
    });
    const cost = { metric: "cost", max: 1 } as const;
    const dollars = { ...cost, currency: "USD" };
    const message = "limits.1.currency: expected a currency of models.prices, which are in CNY; got USD.";
    const refusal = { code: "invalid_request", message, extras: { param: "limits.1.currency" } };
    const limits = [{ ...cost, per: "day" } as const, { ...dollars, per: "week" } as const];
    await expect(admin.create(actor, { username: "carl", limits })).rejects.toMatchObject(refusal);
    expect(store.get("carl")).toBeUndefined();
    await expect(admin.patch(actor, "alice", { limits })).rejects.toMatchObject(refusal);
    expect(await admin.patch(actor, "alice", { max_parallel: 2 })).toMatchObject({ max_parallel: 2 });
    const kept = { limits: [{ ...dollars, per: "day", max: 2 } as const] };
    expect(await admin.patch(actor, "alice", kept)).toMatchObject(kept);
  });

  it("makes no service account without a default group, and changes something else of one all the same", async () => {
    const { admin, store } = await useAdmin({ alice: "", robot: "service = true" });
    const refused = { code: "invalid_request", extras: { param: "default_group" } };
    await expect(admin.create(actor, { username: "bob", service: true })).rejects.toMatchObject(refused);
    await expect(admin.patch(actor, "alice", { service: true })).rejects.toMatchObject(refused);
    await admin.patch(actor, "alice", { service: true, default_group: "team" });
    await expect(admin.patch(actor, "alice", { default_group: null })).rejects.toMatchObject(refused);
    expect(accountOf(store, "alice")).toMatchObject({ service: true, default_group: "team" });
    expect((await admin.patch(actor, "robot", { max_parallel: 3 })).max_parallel).toBe(3);
    const made = await admin.create(actor, { username: "svc-team", service: true, default_group: "team" });
    expect(made.account.service).toBe(true);
  });

  it("makes a user of the first tier with a one-time password, unless told otherwise", async () => {
    const { store, admin, told } = await useAdmin();
    const made = await admin.create(actor, { username: "bob" });
    expect(made.password).toMatch(/^[a-z0-9-]{24}$/);
    expect(accountOf(store, "bob")).toMatchObject({ quota_tier: "basic", must_change_password: true });
    expect(await admin.create(actor, { username: "eve", password, quota_tier: "premium" })).toEqual({
      account: accountOf(store, "eve"),
      password: undefined,
    });
    expect(accountOf(store, "eve").must_change_password).toBeUndefined();
    expect(told).toMatchObject([
      { ...actor, action: "user.created", user: "bob", before: null, after: { username: "bob", quota_tier: "basic" } },
      { ...actor, action: "user.created", user: "eve" },
    ]);
    expect(JSON.stringify(told)).not.toMatch(/argon2|token_version/);
  });

  it("says only what has changed, and nothing where nothing has", async () => {
    const { admin, told } = await useAdmin({ bob: "max_parallel = 2\n" });
    await admin.patch(actor, "bob", { max_parallel: 2, is_active: true, ban_reason: null });
    expect(told).toEqual([]);
    await admin.patch(actor, "bob", { max_parallel: 3, quota_tier: "basic" });
    expect(told).toMatchObject([{ action: "user.changed", before: { max_parallel: 2 }, after: { max_parallel: 3 } }]);
    expect(told[0]?.after).toEqual({ max_parallel: 3 });
  });

  it("takes as `before` what the file held at that moment, edits by hand included", async () => {
    const { usersDir, admin, told } = await useAdmin({ bob: "max_parallel = 2\n" });
    await putUser(usersDir, "bob", "max_parallel = 5 # by hand\n");
    await admin.patch(actor, "bob", { max_parallel: 3 });
    expect(told[0]?.before).toEqual({ max_parallel: 5 });
    expect(await userText(usersDir, "bob")).toContain("max_parallel = 3 # by hand\n");
  });

  it("refuses a change of what was edited by hand since it was read", async () => {
    const { usersDir, store, admin, told } = await useAdmin({ bob: "" });
    const etag = userEtag(accountOf(store, "bob"));
    await putUser(usersDir, "bob", "max_parallel = 5\n");
    const isMeant = (now: string) => now === etag;
    const refused = { code: "precondition_failed", status: 412 };
    await expect(admin.patch(actor, "bob", { max_parallel: 3 }, isMeant)).rejects.toMatchObject(refused);
    await expect(admin.resetPassword(actor, "bob", isMeant)).rejects.toMatchObject(refused);
    await expect(admin.archive(actor, "bob", isMeant)).rejects.toMatchObject(refused);
    expect([accountOf(store, "bob").max_parallel, told]).toEqual([5, []]);
  });

  it("lets exactly one of many win who have read the same", async () => {
    const { store, admin, told } = await useAdmin({ bob: "" });
    const etag = userEtag(accountOf(store, "bob"));
    const tries = Array.from({ length: 20 }, (_, at) =>
      admin.patch(actor, "bob", { max_parallel: at + 2 }, (now) => now === etag),
    );
    const won = (await Promise.allSettled(tries)).filter(({ status }) => status === "fulfilled");
    expect([won.length, told.length]).toEqual([1, 1]);
  });

  it("ends the reason of a ban with the ban, and puts it in the audit log", async () => {
    const { clock, store, admin, told } = await useAdmin({ bob: "" });
    const until = new Date(clock.now() + 1000);
    await admin.patch(actor, "bob", { banned_until: until, ban_reason: "spam" });
    expect(told[0]).toMatchObject({ reason: "spam", after: { ban_reason: "spam", banned_until: until.toISOString() } });
    await admin.patch(actor, "bob", { banned_until: null });
    expect(accountOf(store, "bob")).not.toHaveProperty("ban_reason");
    expect(told[1]).toMatchObject({ reason: "", after: { ban_reason: null, banned_until: null } });
  });

  it("has the archiving of a user in the audit log whose keys could not be revoked", async () => {
    const { store, admin, told } = await useAdmin({ bob: "max_parallel = 2\n" }, () => {
      throw new AppError("storage_unavailable");
    });
    await expect(admin.archive(actor, "bob")).rejects.toMatchObject({ code: "storage_unavailable" });
    expect(store.get("bob")).toBeUndefined();
    expect(told).toMatchObject([{ action: "user.archived", user: "bob", before: { max_parallel: 2 }, after: null }]);
    await expect(admin.archive(actor, "bob")).rejects.toMatchObject({ code: "not_found" });
    expect(told).toHaveLength(1);
  });

  it("keeps one admin who can come in, whatever happens at once", async () => {
    const { clock, admin } = await useAdmin({
      ann: 'roles = ["admin"]\n',
      ben: 'roles = ["admin"]\n',
      old: 'roles = ["admin"]\nis_active = false\n',
      bob: "",
    });
    const outcomes = await Promise.allSettled([
      admin.archive(actor, "ann"),
      admin.patch(actor, "ben", { banned_until: new Date(clock.now() + 1) }),
      admin.patch(actor, "ben", { is_active: false }),
    ]);
    expect(outcomes.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "rejected"]);
    const refused = { code: "conflict", message: expect.stringContaining("ben is the last admin") };
    await expect(admin.patch(actor, "ben", { roles: ["auditor"] })).rejects.toMatchObject(refused);
    await expect(admin.patch(actor, "ben", { roles: null })).rejects.toMatchObject(refused);
    await expect(admin.archive(actor, "ben")).rejects.toMatchObject(refused);
    // Who is no admin, or can't come in, doesn't matter; and the last one may still be changed in other ways.
    await admin.archive(actor, "old");
    await admin.patch(actor, "bob", { is_active: false });
    await admin.patch(actor, "ben", { max_parallel: 9, roles: ["user", "admin"] });
    await admin.resetPassword(actor, "ben");
  });

  it("counts no service account as an admin who can come in, and makes none of the last one", async () => {
    const service = 'roles = ["admin"]\nservice = true\ndefault_group = "lab"\n';
    const robots = Array.from({ length: 101 }, (_, index) => [`a${index}`, service] as const);
    const { admin } = await useAdmin({
      ...Object.fromEntries(robots),
      ben: 'roles = ["admin"]\ndefault_group = "lab"\n',
      zoe: 'roles = ["admin"]\ndefault_group = "lab"\n',
    });
    await admin.patch(actor, "ben", { service: true });
    const refused = { code: "conflict", message: expect.stringContaining("zoe is the last admin") };
    await expect(admin.patch(actor, "zoe", { service: true })).rejects.toMatchObject(refused);
    await expect(admin.patch(actor, "zoe", { roles: null })).rejects.toMatchObject(refused);
    await expect(admin.archive(actor, "zoe")).rejects.toMatchObject(refused);
    await admin.patch(actor, "ben", { service: null });
    await admin.patch(actor, "zoe", { service: true });
  });

  it("ends sessions with a password, given or made", async () => {
    const { store, admin, told, done } = await useAdmin({ bob: "" });
    await admin.setPassword(actor, "bob", password);
    expect(accountOf(store, "bob").must_change_password).toBeUndefined();
    const version = accountOf(store, "bob").token_version;
    const reset = await admin.resetPassword(actor, "bob");
    expect(reset.account).toMatchObject({ must_change_password: true });
    expect(reset.account.token_version).toBeGreaterThan(version);
    expect(done).toHaveLength(2);
    expect(told.map(({ action, after }) => [action, after])).toEqual([
      ["user.password_reset", {}],
      ["user.password_reset", { must_change_password: true }],
    ]);
    await expect(admin.setPassword(actor, "bob", "bob")).rejects.toMatchObject({ extras: { param: "password" } });
  });

  it("archives a user: first the account is gone, then the access ends, and the quota file stays", async () => {
    const { usersDir, store, admin, told, done } = await useAdmin({ bob: "# a note\n" });
    const text = await userText(usersDir, "bob");
    for (const kind of ["quota", "sessions", "keys"]) await writeFile(join(usersDir, `bob.${kind}.toml`), "");
    await admin.archive(actor, "bob");
    expect(store.get("bob")).toBeUndefined();
    expect(store.names()).toEqual([]);
    expect(done).toEqual(["sessions of bob, who is gone"]);
    const [folder = ""] = await readdir(join(usersDir, ".archive"));
    expect(await readFile(join(usersDir, ".archive", folder, "bob.toml"), "utf8")).toBe(text);
    expect(await readdir(join(usersDir, ".archive", folder))).toHaveLength(3);
    expect(await readdir(usersDir)).toEqual([".archive", "bob.quota.toml"]);
    expect(told).toMatchObject([{ action: "user.archived", before: { username: "bob" }, after: null }]);
    await admin.create(actor, { username: "bob" });
    await admin.archive(actor, "bob");
    expect(await readdir(join(usersDir, ".archive"))).toHaveLength(2);
    await expect(admin.archive(actor, "bob")).rejects.toMatchObject({ code: "not_found" });
  });
});

describe("the list of users", () => {
  it("has every user once, in order, while others come and go between the pages", async () => {
    const names = ["zoe", "b2", "b1", "a", "b10", "m-1", "m_1"];
    const { admin } = await useAdmin(Object.fromEntries(names.map((name) => [name, ""])));
    const seen: string[] = [];
    let cursor: string | undefined;
    for (let page = 0; page < 10; page++) {
      const { users, nextCursor } = await admin.list({ limit: 2, cursor });
      seen.push(...users.map(({ username }) => username));
      if (nextCursor === null) break;
      cursor = nextCursor;
      await admin.archive(actor, cursor);
      await admin.create(actor, { username: `0-${page}`, password });
    }
    expect(seen).toEqual([...names].sort());
  });

  it("is in order again after users have come and gone, and the same array as long as none does", async () => {
    const { store, admin } = await useAdmin({ bob: "", zoe: "" });
    const names = store.names();
    await admin.patch(actor, "bob", { max_parallel: 2 });
    expect(store.names()).toBe(names);
    await admin.create(actor, { username: "eve", password });
    await admin.archive(actor, "bob");
    expect(store.names()).toEqual(["eve", "zoe"]);
  });
});
