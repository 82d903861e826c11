import { writeFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { startAdminApi } from "../support/admin-api.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { startScriptedUpstream } from "../support/scripted-upstream.ts";
import { alicePassword, bearer, post, userFile } from "../support/start-proxy.ts";

const chat = { model: "sim-fast", stream: false, messages: [{ role: "user", content: "hi" }] };
const limits = [{ metric: "requests", per: "day", max: 100 }];

const start = () =>
  startAdminApi({
    config: '[groups.fixed]\nmembers = ["alice"]\nowners = ["bob"]',
    users: { olga: userFile("olga", alicePassword) },
  });

describe("/admin/groups", () => {
  it("refuses limits of groups and of keys in a currency that no price is in, until there is one", async () => {
    const price = (currency: string): string =>
      `[[models.prices]]\nmodels = ["${currency.toLowerCase()}-*"]\ncurrency = "${currency}"\ncache_hit = 1\ncache_miss = 1\noutput = 1\n`;
    const { as, proxy } = await startAdminApi({ config: price("CNY"), configFile: true });
    const cost = { metric: "cost", per: "day", max: 1 };
    const dollars = { limits: [cost, { ...cost, currency: "USD" }] };
    expect((await as("boss", "POST", "/admin/groups", { name: "team", members: ["alice"] })).status).toBe(201);
    const ways: readonly Parameters<typeof as>[] = [
      ["boss", "POST", "/admin/groups", { name: "other", ...dollars }],
      ["boss", "PATCH", "/admin/groups/team", dollars],
      ["boss", "POST", "/admin/groups/team/keys", { name: "k", ...dollars }],
      ["boss", "POST", "/admin/users/alice/keys", { name: "k", ...dollars }],
      ["boss", "PATCH", "/admin/users/alice", dollars],
      ["alice", "POST", "/auth/keys", { name: "k", ...dollars }],
    ];
    for (const way of ways) {
      const { status, body } = await as(...way);
      expect([way, status, body.error?.param]).toEqual([way, 400, "limits.1.currency"]);
    }
    await writeFile(join(proxy.folder, "config.toml"), proxy.configText(price("CNY") + price("USD")));
    expect((await as("boss", "POST", "/admin/config/reload", {})).status).toBe(200);
    for (const way of ways) expect([way, (await as(...way)).status < 300]).toEqual([way, true]);
  });

  it("refuses misspelled models of users, groups and keys, which would allow nothing", async () => {
    const price =
      '[[models.prices]]\nmodels = ["tin-5"]\ncurrency = "CNY"\ncache_hit = 1\ncache_miss = 1\noutput = 1\n';
    const { as } = await startAdminApi({ config: price });
    expect((await as("boss", "POST", "/admin/groups", { name: "team", members: ["alice"] })).status).toBe(201);
    const models = (name: string): object => ({ models: ["tin-*", name] });
    const rates = (name: string): object => ({
      rates: [{ metric: "requests", per: "minute", max: 1, ...models(name) }],
    });
    type Way = readonly [...Parameters<typeof as>, param: string];
    const ways = (name: string): readonly Way[] => [
      ["boss", "POST", "/admin/users", { username: "carol", ...models(name) }, "models.1"],
      ["boss", "PATCH", "/admin/users/alice", models(name), "models.1"],
      ["boss", "POST", "/admin/groups", { name: "other", ...models(name) }, "models.1"],
      ["boss", "PATCH", "/admin/groups/team", models(name), "models.1"],
      ["boss", "PATCH", "/admin/groups/team", rates(name), "rates.0.models.1"],
      ["boss", "POST", "/admin/groups/team/keys", { name: "k", ...models(name) }, "models.1"],
      ["boss", "POST", "/admin/users/alice/keys", { name: "k", ...models(name) }, "models.1"],
      ["alice", "POST", "/auth/keys", { name: "k", ...models(name) }, "models.1"],
    ];
    for (const name of ["Tin-5", "tin-5\u3000"]) {
      for (const [user, method, path, sent, param] of ways(name)) {
        const { status, body } = await as(user, method, path, sent);
        expect([path, status, body.error?.param, body.error?.message]).toEqual([
          path,
          400,
          param,
          expect.stringContaining('Did you mean "tin-5"?'),
        ]);
      }
    }
    for (const [user, method, path, sent] of ways("tin-5")) {
      expect([path, (await as(user, method, path, sent)).status < 300]).toEqual([path, true]);
    }
  });

  it("takes model names that a provider may have whose list fails, and refuses them once it has come", async () => {
    const [listing, failing] = [await startScriptedUpstream(), await startScriptedUpstream()];
    onTestFinished(async () => {
      await Promise.all([listing.close(), failing.close()]);
    });
    const provider = (name: string, url: string): string =>
      `[[providers]]\nname = "${name}"\nkind = "openai"\nbase_url = "${url}"\nmodels = ["*"]\n`;
    const clock = createManualClock();
    const { as, get } = await startAdminApi({
      config: provider("listing", listing.url) + provider("failing", failing.url),
      env: { OPENAI_API_KEY: "k" },
      clock,
    });
    const lists = async (status: number): Promise<void> => {
      const asked = get("/v1/models");
      const data = (id: string) => ({ object: "list", data: [{ id }] });
      (await listing.next()).respond(200, data("tin-5"));
      (await failing.next()).respond(status, status === 200 ? data("other") : { error: { message: "down" } });
      expect((await asked).status).toBe(200);
    };
    const models = ["Tin-5"];
    const rates = [{ metric: "requests", per: "minute", max: 1, models }];
    const ways: readonly Parameters<typeof as>[] = [
      ["boss", "PATCH", "/admin/users/alice", { models }],
      ["boss", "POST", "/admin/groups", { name: "team", members: ["alice"], models, rates }],
      ["boss", "PATCH", "/admin/groups/team", { models, rates }],
      ["alice", "POST", "/auth/keys", { name: "k", models }],
    ];
    await lists(503);
    for (const way of ways) expect([way, (await as(...way)).status < 300]).toEqual([way, true]);
    clock.advance(61_000);
    await lists(200);
    // What has a name already may keep it: else no other change of it would be possible that repeats the list.
    const statuses = ways.map(async (way) => (await as(...way)).status);
    expect(await Promise.all(statuses)).toEqual([200, 400, 200, 400]);
    expect((await as("boss", "PATCH", "/admin/users/bob", { models })).status).toBe(400);
  });

  it("makes, shows, changes and removes groups, with an audit of what differs", async () => {
    const { get, post: create, as, delete: remove, audits } = await start();
    const made = await create("/admin/groups", { name: "team", members: ["bob"], owners: ["olga"], limits });
    expect(made).toMatchObject({
      status: 201,
      body: { name: "team", members: ["bob"], origin: "admin", models: null },
    });
    expect((await as("eve", "GET", "/admin/groups")).body).toMatchObject({
      groups: [{ name: "fixed" }, { name: "team" }],
    });
    expect((await create("/admin/groups", { name: "team" })).status).toBe(409);
    const patch = { description: "all of us", models: ["sim-*"], members: ["bob", "@fixed"] };
    expect(await as("boss", "PATCH", "/admin/groups/team", patch)).toMatchObject({
      status: 200,
      body: { ...patch, users: ["alice", "bob"], owners: ["olga"], limits },
    });
    expect((await as("boss", "PATCH", "/admin/groups/team", { models: null })).body).toMatchObject({ models: null });
    expect((await as("boss", "PUT", "/admin/groups/team/members/olga")).status).toBe(204);
    expect((await as("boss", "PUT", "/admin/groups/team/members/olga")).status).toBe(204);
    expect((await as("boss", "PUT", "/admin/groups/team/members/nobody")).status).toBe(404);
    expect((await get("/admin/groups/team")).body.users).toEqual(["alice", "bob", "olga"]);
    expect((await remove("/admin/groups/team/members/olga")).status).toBe(204);
    expect((await remove("/admin/groups/team/members/olga")).status).toBe(204);
    expect((await remove("/admin/groups/team")).status).toBe(204);
    expect((await remove("/admin/groups/team")).status).toBe(404);
    expect((await get("/admin/groups/team")).status).toBe(404);
    const lines = (await audits()).map(({ action, subject, after }) => [action, subject, after]);
    expect(lines).toMatchObject([
      ["group.created", "team", { members: ["bob"], owners: ["olga"] }],
      ["group.changed", "team", patch],
      ["group.changed", "team", { models: null }],
      ["group.changed", "team", { members: ["bob", "@fixed", "olga"] }],
      ["group.changed", "team", { members: ["bob", "@fixed"] }],
      ["group.removed", "team", null],
    ]);
  });

  it("refuses a change of what somebody else has changed in between, by the ETag", async () => {
    const { proxy, as, post: create } = await start();
    await create("/admin/groups", { name: "team" });
    const token = await proxy.login("boss");
    const send = (method: string, path: string, etag: string, body?: object) =>
      fetch(`${proxy.url}/admin/groups/team${path}`, {
        method,
        headers: {
          ...bearer(token),
          "if-match": etag,
          ...(body === undefined ? {} : { "content-type": "application/json" }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
    const read = async (): Promise<string> =>
      (await fetch(`${proxy.url}/admin/groups/team`, { headers: bearer(token) })).headers.get("etag") ?? "";
    const old = await read();
    expect(old).toMatch(/^"[\w-]{22}"$/);
    const changed = await send("PATCH", "", old, { description: "mine" });
    expect([changed.status, changed.headers.get("etag")]).toEqual([200, await read()]);
    for (const [method, path] of [
      ["PATCH", ""],
      ["PUT", "/members/alice"],
      ["DELETE", "/members/alice"],
      ["DELETE", ""],
    ] as const) {
      const body = method === "PATCH" ? { description: "theirs" } : undefined;
      expect((await send(method, path, old, body)).status, `${method} ${path}`).toBe(412);
    }
    expect((await as("boss", "GET", "/admin/groups/team")).body).toMatchObject({ description: "mine", members: [] });
    expect((await send("PUT", "/members/alice", await read())).status).toBe(204);
    expect((await send("DELETE", "", await read())).status).toBe(204);
  });

  it("refuses what is wrong, by name, and what config.toml has", async () => {
    const { as, post: create, delete: remove } = await start();
    await create("/admin/groups", { name: "team" });
    const refused: [string, string, object | undefined, number, string | null][] = [
      ["POST", "/admin/groups", {}, 400, "name"],
      ["POST", "/admin/groups", { name: "Team" }, 400, "name"],
      ["POST", "/admin/groups", { name: "a", members: ["@b"] }, 400, "members"],
      ["POST", "/admin/groups", { name: "a", members: ["x y"] }, 400, "members.0"],
      [
        "POST",
        "/admin/groups",
        { name: "a", limits: [{ metric: "requests", per: "day", max: -1 }] },
        400,
        "limits.0.max",
      ],
      ["POST", "/admin/groups", { name: "a", max_parallel: 1.5 }, 400, "max_parallel"],
      ["POST", "/admin/groups", { name: "a", owner: "x" }, 400, "owner"],
      ["PATCH", "/admin/groups/team", { members: ["@team"] }, 400, "members"],
      ["PATCH", "/admin/groups/fixed", { description: "x" }, 409, null],
      ["PUT", "/admin/groups/fixed/members/bob", undefined, 409, null],
      ["PATCH", "/admin/groups/nothing", { description: "x" }, 404, null],
    ];
    for (const [method, path, body, status, param] of refused) {
      expect(await as("boss", method, path, body)).toMatchObject({ status, body: { error: { param } } });
    }
    expect((await remove("/admin/groups/fixed")).status).toBe(409);
    expect((await as("eve", "POST", "/admin/groups", { name: "hers" })).status).toBe(403);
  });

  it("goes on after config.toml has lost a group that is a member of another", async () => {
    const config = '[groups.seed]\nmembers = ["alice"]';
    const { post: create, delete: remove, get, proxy } = await startAdminApi({ config, configFile: true });
    await create("/admin/groups", { name: "outer", members: ["alice", "bob", "@seed"] });
    writeFileSync(join(proxy.folder, "config.toml"), proxy.configText(""));
    expect((await create("/admin/config/reload", {})).status).toBe(200);
    expect((await create("/admin/groups", { name: "fresh" })).status).toBe(201);
    expect((await remove("/admin/groups/outer/members/alice")).status).toBe(204);
    expect((await get("/admin/groups/outer")).body).toMatchObject({ members: ["bob", "@seed"], users: ["bob"] });
  });

  it("shows and changes what a group has used, by member, to its owners as well", async () => {
    const { get, post: create, as, audits } = await start();
    await create("/admin/groups", { name: "team", members: ["alice", "bob"], owners: ["olga"], limits });
    for (const user of ["bob", "bob"]) await as(user, "POST", "/v1/chat/completions", chat);
    expect((await get("/admin/groups/team/quota")).body).toMatchObject({
      limits: [{ group: "team", used: 2, max: 100 }],
    });
    const adjusted = await create("/admin/groups/team/quota/adjust", { requests: 5, reason: "moved here" });
    expect(adjusted.body).toMatchObject({ group: "team", limits: [{ used: 7 }] });
    expect((await create("/admin/groups/team/quota/reset", { per: "day", reason: "anew" })).body.limits[0].used).toBe(
      0,
    );
    const { body } = await get("/admin/groups/team/usage?by=user");
    expect(body).toMatchObject({
      rows: [
        { user: "", requests: 0 },
        { user: "bob", requests: 2 },
      ],
    });
    expect((await as("olga", "GET", "/auth/groups/team/usage?by=model")).body.rows).toMatchObject([
      { model: "adjust" },
      { model: "sim-fast", requests: 2 },
    ]);
    const [foreign, unknown] = [
      await as("bob", "GET", "/auth/groups/team/usage"),
      await as("bob", "GET", "/auth/groups/nothing/usage"),
    ];
    expect([foreign.status, foreign.body.error.message]).toEqual([404, unknown.body.error.message]);
    expect((await as("olga", "GET", "/auth/groups")).body.groups).toMatchObject([
      { name: "team", role: "owner", member: false, default: false, limits: [{ used: 0 }] },
    ]);
    expect((await as("alice", "GET", "/auth/groups")).body.groups).toMatchObject([
      { name: "fixed", role: "member", default: true, limits: [] },
      { name: "team", role: "member", default: false },
    ]);
    expect((await get("/admin/usage?by=user")).body).toMatchObject({ rows: [{ user: "bob" }] });
    const changes = (await audits()).filter(({ action }) => String(action).startsWith("quota."));
    expect(changes).toMatchObject([
      { action: "quota.adjusted", subject: "@team requests", reason: "moved here" },
      { action: "quota.reset", subject: "@team day", reason: "anew" },
    ]);
    expect(changes.some((line) => "user" in line && line.user !== null)).toBe(false);
  });
});

describe("keys that administrators make", () => {
  it("of a user, also for a group that has the user", async () => {
    const { post: create, proxy, audits } = await start();
    const made = await create("/admin/users/alice/keys", { name: "for alice", group: "fixed" });
    expect(made).toMatchObject({ status: 201, body: { user: "alice", group: "fixed", require_signature: false } });
    const answer = await post(`${proxy.url}/v1/chat/completions`, chat, bearer(String(made.body.key)));
    expect(answer.status).toBe(200);
    for (const [path, body, status] of [
      ["/admin/users/bob/keys", { name: "x", group: "fixed" }, 400],
      ["/admin/users/bob/keys", { name: "x", group: "nothing" }, 400],
      ["/admin/users/nobody/keys", { name: "x" }, 404],
      ["/admin/users/bob/keys", { name: "x", expires_at: "2020-01-01T00:00:00Z" }, 400],
    ] as const) {
      expect(await create(path, body)).toMatchObject({ status });
    }
    expect(await audits()).toMatchObject([
      { action: "api_key.created", user: "alice", subject: made.body.id, after: { name: "for alice", group: "fixed" } },
    ]);
    expect(JSON.stringify(await audits())).not.toContain(String(made.body.key));
  });

  it("of a group belong to its service account, which can't log in and has the group's limits alone", async () => {
    const { post: create, proxy, as, get } = await start();
    await create("/admin/groups", { name: "team", limits: [{ metric: "requests", per: "day", max: 2 }] });
    const made = await create("/admin/groups/team/keys", { name: "robot" });
    expect(made).toMatchObject({ status: 201, body: { user: "svc-team", group: "team" } });
    expect((await get("/admin/users/svc-team")).body).toMatchObject({ service: true, default_group: "team" });
    expect((await create("/admin/groups/team/keys", { name: "second" })).body.user).toBe("svc-team");
    // The limits of its tier don't concern it.
    const say = () => post(`${proxy.url}/v1/chat/completions`, chat, bearer(String(made.body.key)));
    const codes: number[] = [];
    for (let count = 0; count < 3; count++) codes.push((await say()).status);
    expect(codes).toEqual([200, 200, 402]);
    const quota = await fetch(`${proxy.url}/auth/quota`, { headers: bearer(String(made.body.key)) });
    expect(await quota.json()).toMatchObject({ limits: [{ group: "team", used: 2 }] });

    expect((await as("bob", "GET", "/auth/quota")).status).toBe(200);
    await as("boss", "PATCH", "/admin/users/bob", { service: true, default_group: "team" });
    expect((await as("bob", "GET", "/auth/quota")).status).toBe(401);
    const login = await post(`${proxy.url}/auth/login`, { username: "bob", password: alicePassword });
    expect([login.status, ((await login.json()) as { error: { code: string } }).error.code]).toEqual([
      401,
      "invalid_credentials",
    ]);
    expect((await create("/admin/groups/team/keys", { name: "x", user: "alice" })).status).toBe(400);
  });

  it("end with their group, for good", async () => {
    const { post: create, proxy, as, get, delete: remove, audits } = await start();
    await create("/admin/groups", { name: "team", members: ["alice", "bob"] });
    const keyOf = async (path: string, body: object) =>
      (await create(path, { name: "k", ...body })).body as Record<"id" | "key" | "user", string>;
    const ofGroup = await keyOf("/admin/groups/team/keys", {});
    const ofAlice = await keyOf("/admin/users/alice/keys", { group: "team" });
    const ofBob = await keyOf("/admin/users/bob/keys", { group: "team" });
    const free = await keyOf("/admin/users/alice/keys", {});
    // A key of one who has left would be in force again in a group that lists that user.
    expect((await remove("/admin/groups/team/members/bob")).status).toBe(204);
    await create("/admin/groups", { name: "outer", members: ["@team"] });
    expect((await remove("/admin/groups/team")).status).toBe(409);
    const say = async ({ key }: { key: string }) =>
      (await post(`${proxy.url}/v1/chat/completions`, chat, bearer(key))).status;
    expect([await say(ofGroup), await say(ofAlice)]).toEqual([200, 200]);
    await remove("/admin/groups/outer");

    expect((await remove("/admin/groups/team")).status).toBe(204);
    expect((await get("/admin/users/svc-team")).status).toBe(404);
    await create("/admin/groups", { name: "team", members: ["alice", "bob", "svc-team"] });
    const fresh = await keyOf("/admin/groups/team/keys", {});
    expect(fresh.user).toBe("svc-team");
    const statuses = [];
    for (const key of [ofGroup, ofAlice, ofBob, free, fresh]) statuses.push(await say(key));
    expect(statuses).toEqual([401, 401, 401, 200, 200]);
    expect((await as("boss", "GET", "/admin/users/alice/keys")).body.keys).toMatchObject([{ id: free.id }]);
    const ends = (await audits()).filter(({ action }) => /revoked|archived/.test(String(action)));
    expect(ends).toMatchObject([
      { action: "api_key.revoked", user: "alice", subject: ofAlice.id, before: { group: "team" } },
      { action: "api_key.revoked", user: "bob", subject: ofBob.id },
      { action: "api_key.revoked", user: "svc-team", subject: ofGroup.id },
      { action: "user.archived", user: "svc-team" },
    ]);
  });

  it("that are made while their group is removed leave nothing behind", async () => {
    const { post: create, get, as, delete: remove } = await start();
    await create("/admin/groups", { name: "team", members: ["alice"] });
    await as("alice", "GET", "/auth/keys");
    // The account that stands for the group takes a hash: the removal passes it.
    const answers = await Promise.all([
      create("/admin/groups/team/keys", { name: "service" }),
      create("/admin/users/alice/keys", { name: "by boss", group: "team" }),
      as("alice", "POST", "/auth/keys", { name: "own", group: "team" }),
      remove("/admin/groups/team"),
    ]);
    expect(answers.at(-1)?.status).toBe(204);
    expect((await get("/admin/users/svc-team")).status).toBe(404);
    expect((await get("/admin/users/alice/keys")).body.keys).toEqual([]);
    await create("/admin/groups", { name: "team", members: ["alice"] });
    expect(await create("/admin/groups/team/keys", { name: "next" })).toMatchObject({ body: { user: "svc-team" } });
  });

  it("don't turn somebody else into a service account", async () => {
    const { post: create } = await start();
    await create("/admin/groups", { name: "x" });
    await create("/admin/users", { username: "svc-x", password: "correct horse battery" });
    expect((await create("/admin/groups/x/keys", { name: "k" })).status).toBe(409);
  });
});
