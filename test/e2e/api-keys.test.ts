import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ask, jsonOf, logIn, statusOf, type JsonAnswer } from "../support/accounts.ts";
import { alicePassword, bearer, post, startProxy, userFile, type RunningProxy } from "../support/start-proxy.ts";

interface Created {
  readonly id: string;
  readonly key: string;
  readonly created_at: string;
}

const chat = { model: "sim-fast", stream: false, messages: [{ role: "user", content: "hi" }] };

describe("API keys", () => {
  let proxy: RunningProxy;
  let token: string;

  beforeAll(async () => {
    proxy = await startProxy({
      users: {
        alice: userFile("alice", alicePassword, "max_parallel = 20\n"),
        bob: userFile("bob", "another password"),
      },
    });
    ({ token } = await logIn(proxy, "alice", alicePassword));
  });

  afterAll(() => proxy.dispose());

  const create = (body: object, by = token): Promise<JsonAnswer<Created>> =>
    jsonOf(post(`${proxy.url}/auth/keys`, body, bearer(by)));
  const newKey = async (terms: object = {}): Promise<Created> => (await create({ name: "test", ...terms })).body;
  const chatWith = (headers: Record<string, string>, body: object = chat) =>
    jsonOf(post(`${proxy.url}/v1/chat/completions`, body, headers));

  it("chat, list models and show the quota of their user, in any of the headers", async () => {
    const { key } = await newKey();
    expect(key).toMatch(/^dsp_[0-9A-Za-z]{49}$/);
    expect((await chatWith(bearer(key))).status).toBe(200);
    expect((await chatWith({ "api-key": key })).status).toBe(200);
    expect((await chatWith({ "x-api-key": key })).status).toBe(200);
    expect(await ask(proxy, "GET /auth/quota", key)).toMatchObject({ status: 200, body: { username: "alice" } });
    expect((await ask(proxy, "GET /v1/models", key)).status).toBe(200);
  });

  it("are shown once, and listed without anything secret", async () => {
    const { key, id, created_at } = await newKey({ name: "shown once" });
    await chatWith(bearer(key));
    const { body } = await ask<{ keys: { id: string }[] }>(proxy, "GET /auth/keys", token);
    const listed = body.keys.find((one) => one.id === id);
    expect(listed).toEqual({
      id,
      name: "shown once",
      require_signature: false,
      created_at,
      expires_at: null,
      last_used_at: expect.any(String),
    });
    expect(JSON.stringify(body)).not.toContain(key.slice(4, 12));
    expect(proxy.logLines.join("")).not.toContain(key.slice(4, 12));
  });

  it("may not manage keys, sessions or passwords", async () => {
    const { key, id } = await newKey();
    const passwords = { current_password: alicePassword, new_password: "a fresh set of words" };
    const answers = [
      await create({ name: "child" }, key),
      await ask(proxy, "GET /auth/keys", key),
      await ask(proxy, `DELETE /auth/keys/${id}`, key),
      await ask(proxy, "GET /auth/sessions", key),
      await ask(proxy, "DELETE /auth/sessions/x", key),
      await ask(proxy, "POST /auth/logout-all", key),
      await jsonOf(post(`${proxy.url}/auth/password`, passwords, bearer(key))),
    ];
    for (const answer of answers) expect(answer).toMatchObject({ status: 403, body: { error: { code: "forbidden" } } });
  });

  it("are held to limits of their own, within their user's", async () => {
    const { key, id } = await newKey({ limits: [{ metric: "requests", per: "day", max: 1 }] });
    const other = await newKey();
    // The user may run twenty at once, the key may make one.
    const statuses = await Promise.all(Array.from({ length: 10 }, async () => (await chatWith(bearer(key))).status));
    expect(statuses.sort()).toEqual([200, ...Array.from({ length: 9 }, () => 402)]);
    expect(await chatWith(bearer(key))).toMatchObject({
      body: { error: { code: "quota_exceeded", details: { api_key: id, metric: "requests", used: 1, limit: 1 } } },
    });
    expect((await chatWith(bearer(other.key))).status).toBe(200);
    const { body } = await ask<{ limits: object[] }>(proxy, "GET /auth/quota", key);
    expect(body.limits.at(-1)).toMatchObject({ api_key: id, per: "day", max: 1, used: 1, remaining: 0 });
    expect(body.limits).toHaveLength(2);
  });

  it("stop when they are revoked, which only their owner can do", async () => {
    const bob = await logIn(proxy, "bob", "another password");
    const { key, id } = await newKey();
    expect(await ask(proxy, `DELETE /auth/keys/${id}`, bob.token)).toMatchObject({ status: 404 });
    expect(await statusOf(proxy, key)).toBe(200);
    expect(await ask(proxy, `DELETE /auth/keys/${id}`, token)).toEqual({ status: 204, body: {} });
    expect(await ask(proxy, "GET /auth/quota", key)).toMatchObject({
      status: 401,
      body: { error: { code: "invalid_api_key" } },
    });
  });

  it("that are mistyped are told from unknown ones", async () => {
    const { key } = await newKey();
    const mistyped = key.replace(/.$/, (last) => (last === "a" ? "b" : "a"));
    const { body } = await ask(proxy, "GET /auth/quota", mistyped);
    expect(body.error?.message).toContain("mistyped");
  });

  it("win beside an Authorization that is none, and yield to one that is good", async () => {
    const { key } = await newKey();
    const quota = (headers: Record<string, string>) => jsonOf(fetch(`${proxy.url}/auth/quota`, { headers }));
    const bob = await logIn(proxy, "bob", "another password");
    expect(await quota({ ...bearer("made-up"), "api-key": key })).toMatchObject({ body: { username: "alice" } });
    expect(await quota({ ...bearer(bob.token), "api-key": key })).toMatchObject({ body: { username: "bob" } });
    expect(await quota({ ...bearer(key), "api-key": "made-up" })).toMatchObject({ body: { username: "alice" } });
    expect(await quota({ authorization: "Basic x", "api-key": key })).toMatchObject({ body: { username: "alice" } });
    expect(await quota({ ...bearer("made-up"), "api-key": "dsp_made-up" })).toMatchObject({
      status: 401,
      body: { error: { code: "invalid_token" } },
    });
    expect(await quota({ "api-key": "" })).toMatchObject({ status: 401, body: { error: { code: "missing_token" } } });
  });

  it("may be for some models only", async () => {
    const { key } = await newKey({ models: ["deepseek-*"] });
    const refused = { status: 403, body: { error: { code: "forbidden", param: "model" } } };
    expect(await chatWith(bearer(key))).toMatchObject(refused);
    expect((await chatWith(bearer(key), { ...chat, model: "deepseek-flash" })).status).toBe(200);
    expect((await chatWith(bearer(key), { ...chat, model: 1 })).status).toBe(400);
    const { body } = await ask<{ data: { id: string }[] }>(proxy, "GET /models", key);
    expect(body.data.map(({ id }) => id).filter((id) => !id.startsWith("deepseek-"))).toEqual([]);
  });

  it.each([
    "/chat/completions",
    "/beta/chat/completions",
    "/completions",
    "/v1/completions",
    "/beta/completions",
    "/embeddings",
    "/v1/embeddings",
    "/anthropic/v1/messages",
  ])("are for these models only at %s too", async (path) => {
    const { key } = await newKey({ models: ["deepseek-*"] });
    const body = { ...chat, prompt: "hi", input: "hi", max_tokens: 1 };
    const to = (model: string) => jsonOf(post(`${proxy.url}${path}`, { ...body, model }, { "x-api-key": key }));
    expect(await to("sim-fast")).toMatchObject({ status: 403, body: { error: { code: "forbidden", param: "model" } } });
    expect((await to("deepseek-flash")).status).toBe(200);
  });

  it("may be for some addresses only", async () => {
    const here = await newKey({ addresses: ["127.0.0.0/8"] });
    const elsewhere = await newKey({ addresses: ["203.0.113.0/24", "2001:db8::1"] });
    expect(await statusOf(proxy, here.key)).toBe(200);
    const forged = { "x-forwarded-for": "203.0.113.5" };
    expect(await ask(proxy, "GET /auth/quota", elsewhere.key, forged)).toMatchObject({
      status: 403,
      body: { error: { code: "address_not_allowed" } },
    });
  });

  it("stop with their user, on the next request", async () => {
    const bob = await logIn(proxy, "bob", "another password", "before the ban");
    const { key } = (await create({ name: "bob's" }, bob.token)).body;
    expect(await statusOf(proxy, key)).toBe(200);
    await proxy.services.users.update("bob", { is_active: false });
    expect(await ask(proxy, "GET /auth/quota", key)).toMatchObject({
      status: 403,
      body: { error: { code: "account_disabled" } },
    });
    await proxy.services.users.update("bob", { is_active: true });
    expect(await statusOf(proxy, key)).toBe(200);
  });

  it.each([
    ["name", {}],
    ["name", { name: "" }],
    ["name", { name: "a\nb" }],
    ["name", { name: "x".repeat(65) }],
    ["models", { name: "x", models: [] }],
    ["addresses.0", { name: "x", addresses: ["localhost"] }],
    ["addresses.0", { name: "x", addresses: ["10.0.0.0/33"] }],
    ["expires_at", { name: "x", expires_at: "tomorrow" }],
    ["expires_at", { name: "x", expires_at: "2020-01-01T00:00:00Z" }],
    ["limits.0.max", { name: "x", limits: [{ metric: "requests", per: "day", max: -1 }] }],
    ["require_signature", { name: "x", require_signature: "yes" }],
  ])("are not made with a wrong %s", async (param, body) => {
    expect(await create(body)).toMatchObject({ status: 400, body: { error: { code: "invalid_request", param } } });
  });

  it("carry their limits, and live on over a restart", async () => {
    const limits = [{ metric: "requests", per: "day", max: 5 }];
    const first = await startProxy();
    const alice = await logIn(first, "alice", alicePassword);
    const made = await jsonOf<Created>(post(`${first.url}/auth/keys`, { name: "x", limits }, bearer(alice.token)));
    expect(made.body).toMatchObject({ limits });
    await first.stop();
    const second = await startProxy({ folder: first.folder });
    expect(await statusOf(second, made.body.key)).toBe(200);
    await second.dispose();
  });
});
