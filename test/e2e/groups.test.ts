import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { ask, jsonOf, type JsonAnswer } from "../support/accounts.ts";
import { eventually } from "../support/eventually.ts";
import { bearer, post, startProxy, userFile, type RunningProxy } from "../support/start-proxy.ts";

const password = "a password of words";
const chat = { model: "sim-fast", stream: false, messages: [{ role: "user", content: "hi" }] };

interface Limit {
  readonly group?: string;
  readonly used: number;
  readonly reserved: number;
}

const users = (names: readonly string[], rest: Readonly<Record<string, string>> = {}) =>
  Object.fromEntries(names.map((name) => [name, userFile(name, password, `max_parallel = 20\n${rest[name] ?? ""}`)]));

async function start(options: Parameters<typeof startProxy>[0]): Promise<RunningProxy> {
  const proxy = await startProxy(options);
  onTestFinished(() => proxy.dispose());
  return proxy;
}

const chatOf = (proxy: RunningProxy, token: string, headers: Readonly<Record<string, string>> = {}, body = {}) =>
  jsonOf<{ error?: { code: string; details?: object } }>(
    post(`${proxy.url}/v1/chat/completions`, { ...chat, ...body }, { ...bearer(token), ...headers }),
  );
const codeOf = ({ status, body }: JsonAnswer): string => `${status} ${body.error?.code ?? ""}`.trim();
const groupUse = async (proxy: RunningProxy, token: string, group: string) => {
  const { body } = await ask<{ limits: Limit[] }>(proxy, "GET /auth/quota", token, { "x-group": group });
  return body.limits.filter((limit) => limit.group === group);
};

describe("a request in a group", () => {
  let proxy: RunningProxy;
  const tokens: Record<string, string> = {};

  beforeAll(async () => {
    proxy = await startProxy({
      config: `
[groups.research]
members = ["alice", "bob", "@interns"]
owners = ["olga"]
models = ["sim-fast", "sim-paced*"]
limits = [{ metric = "requests", per = "day", max = 1000 }]
[groups.interns]
members = ["ivan"]
[groups.paid]
members = ["alice", "ivan"]
limits = [{ metric = "requests", per = "month", max = 1000 }]
[models.aliases]
"gpt-4" = "sim-fast"
[quota.tiers.basic]
models = ["sim-*"]
`,
      users: users(["alice", "bob", "ivan", "olga"], { ivan: 'default_group = "paid"\n' }),
    });
    for (const name of ["alice", "bob", "ivan", "olga"]) tokens[name] = await proxy.login(name, password);
  });
  afterAll(() => proxy.dispose());

  const say = (name: string, headers: Readonly<Record<string, string>> = {}, body = {}) =>
    chatOf(proxy, tokens[name] ?? "", headers, body);
  const usedIn = async (group: string): Promise<number> =>
    (await groupUse(proxy, tokens.alice ?? "", group))[0]?.used ?? NaN;

  it("counts for the user and for the group that it names, else for the default, else for the first one", async () => {
    const before = [await usedIn("research"), await usedIn("paid")];
    const counted = async () => [
      (await usedIn("research")) - (before[0] ?? 0),
      (await usedIn("paid")) - (before[1] ?? 0),
    ];
    expect((await say("bob")).status).toBe(200);
    expect(await counted()).toEqual([1, 0]);
    expect((await say("alice", { "x-group": "paid" })).status).toBe(200);
    expect(await counted()).toEqual([1, 1]);
    expect((await say("alice")).status).toBe(200);
    expect(await counted()).toEqual([2, 1]);
    expect((await say("ivan")).status).toBe(200);
    expect(await counted()).toEqual([2, 2]);
    expect((await say("olga")).status).toBe(200);
    expect(await counted()).toEqual([2, 2]);
    await eventually(() => {
      const finished = proxy.logLines
        .filter((line) => line.includes('"chat finished"'))
        .map((line) => JSON.parse(line));
      expect(finished.map((line: { group: string }) => line.group)).toEqual([
        "research",
        "paid",
        "research",
        "paid",
        "",
      ]);
    });
  });

  it("is refused alike for a group of others and for one that doesn't exist", async () => {
    const [foreign, unknown] = [await say("bob", { "x-group": "paid" }), await say("bob", { "x-group": "nothing" })];
    expect(codeOf(foreign)).toBe("403 group_not_allowed");
    const withoutId = ({ body }: JsonAnswer) => JSON.stringify(body).replace(/"trace_id":"[^"]*"/, "");
    expect(withoutId(unknown)).toBe(withoutId(foreign));
    // An owner sees what the group uses, and can't use it.
    expect(codeOf(await say("olga", { "x-group": "research" }))).toBe("403 group_not_allowed");
    expect(codeOf(await ask(proxy, "GET /v1/models", tokens.bob ?? "", { "x-group": "paid" }))).toBe(
      "403 group_not_allowed",
    );
  });

  it.each(["", "Research", "research, paid", "@research", "a".repeat(33), "re search"])(
    "is refused with 400 where X-Group is %j",
    async (value) => {
      expect(await say("bob", { "x-group": value })).toMatchObject({
        status: 400,
        body: { error: { code: "invalid_request", param: "X-Group" } },
      });
    },
  );

  it("may use what the user, the tier and the group all allow, by the client's name or behind an alias", async () => {
    expect(codeOf(await say("bob", {}, { model: "sim-slow" }))).toBe("403 model_not_allowed");
    expect(codeOf(await say("bob", {}, { model: "gpt-4" }))).toBe("200");
    expect(codeOf(await say("olga", {}, { model: "sim-burst:3" }))).toBe("200");
    expect(codeOf(await say("olga", {}, { model: "other-model" }))).toBe("403 model_not_allowed");
    const count = { model: "sim-slow", messages: [{ role: "user", content: "hi" }] };
    const counted = post(`${proxy.url}/anthropic/v1/messages/count_tokens`, count, bearer(tokens.bob ?? ""));
    expect((await jsonOf<{ error: { type: string } }>(counted)).status).toBe(403);
    const listed = await ask<{ data: { id: string }[] }>(proxy, "GET /v1/models", tokens.bob ?? "");
    expect(listed.body.data.every(({ id }) => id === "gpt-4" || /^sim-(fast|paced)/.test(id))).toBe(true);
    expect(listed.body.data.length).toBeGreaterThan(0);
  });

  it("counts for the group of its API key, and can't name another", async () => {
    const newKey = (name: string, body: object) =>
      jsonOf<{ key: string; group?: string }>(
        post(`${proxy.url}/auth/keys`, { name: "for a group", ...body }, bearer(tokens[name] ?? "")),
      );
    const { body } = await newKey("alice", { group: "paid" });
    expect(body.group).toBe("paid");
    const before = await usedIn("paid");
    expect(codeOf(await chatOf(proxy, body.key))).toBe("200");
    expect(codeOf(await chatOf(proxy, body.key, { "x-group": "paid" }))).toBe("200");
    expect(codeOf(await chatOf(proxy, body.key, { "x-group": "research" }))).toBe("403 group_not_allowed");
    expect((await usedIn("paid")) - before).toBe(2);
    expect(codeOf(await newKey("bob", { group: "paid" }))).toBe("403 group_not_allowed");
    expect(codeOf(await newKey("bob", { group: "No" }))).toBe("400 invalid_request");
  });
});

describe("the last unit of a group", () => {
  it("goes to exactly one of 200 requests by 20 members", async () => {
    const names = Array.from({ length: 20 }, (_none, index) => `user-${index}`);
    const proxy = await start({
      config: `
[groups.team]
members = [${names.map((name) => `"${name}"`).join(", ")}]
limits = [{ metric = "requests", per = "total", max = 1 }]
[rate_limit]
requests_per_second = 100000
`,
      users: users(names),
    });
    const tokens = await Promise.all(names.map((name) => proxy.login(name, password)));
    const codes = await Promise.all(
      tokens.flatMap((token) => Array.from({ length: 10 }, async () => codeOf(await chatOf(proxy, token)))),
    );
    expect(codes.filter((code) => code === "200")).toHaveLength(1);
    expect(codes.filter((code) => code === "402 quota_exceeded")).toHaveLength(199);
    expect(await groupUse(proxy, tokens[7] ?? "", "team")).toMatchObject([{ used: 1, reserved: 0 }]);
    const own = await ask<{ limits: Limit[] }>(proxy, "GET /auth/quota", tokens[7] ?? "");
    expect(own.body.limits.every(({ reserved }) => reserved === 0)).toBe(true);
  });
});

describe("a group that is removed while its members stream", () => {
  it("is charged for what they began in it, and they go on without it", async () => {
    const group = '[groups.team]\nmembers = ["alice"]\nlimits = [{ metric = "requests", per = "day", max = 10 }]';
    const proxy = await start({ config: group, users: users(["alice"]), configFile: true });
    const token = await proxy.login("alice", password);
    const bound = await jsonOf<{ key: string }>(
      post(`${proxy.url}/auth/keys`, { name: "bound", group: "team" }, bearer(token)),
    );
    const streaming = await post(
      `${proxy.url}/v1/chat/completions`,
      { ...chat, model: "sim-paced:20", stream: true },
      bearer(token),
    );
    writeFileSync(join(proxy.folder, "config.toml"), proxy.configText(""));
    await proxy.services.reload("the test");
    expect(codeOf(await chatOf(proxy, token, { "x-group": "team" }))).toBe("403 group_not_allowed");
    expect(codeOf(await chatOf(proxy, bound.body.key))).toBe("403 group_not_allowed");
    expect(await streaming.text()).toContain("[DONE]");
    // Made again, it goes on from there.
    writeFileSync(join(proxy.folder, "config.toml"), proxy.configText(group));
    await proxy.services.reload("the test");
    await eventually(async () => {
      expect(await groupUse(proxy, token, "team")).toMatchObject([{ used: 1, reserved: 0 }]);
    });
    expect(codeOf(await chatOf(proxy, bound.body.key))).toBe("200");
    expect(await groupUse(proxy, token, "team")).toMatchObject([{ used: 2 }]);
  });
});
