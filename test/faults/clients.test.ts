import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { takesJsonAlone } from "../../src/http/routes/chat.ts";
import { jsonOf } from "../support/accounts.ts";
import { answerOf, expectRefusal } from "../support/refusals.ts";
import { startScriptedUpstream } from "../support/scripted-upstream.ts";
import { alicePassword, bearer, post, startProxy, userFile, type RunningProxy } from "../support/start-proxy.ts";

const good = { model: "deepseek-flash", messages: [{ role: "user", content: "hi" }] };
const odd = ["org/model-1", "a b", "ü/ß", "50%", "q?x#y", "c:d@e+f", "x%2Fy"];

let proxy: RunningProxy;
let token: string;

beforeAll(async () => {
  const aliases = ["tin-5", ...odd].map((name) => `${JSON.stringify(name)} = "deepseek-flash"`).join(", ");
  proxy = await startProxy({
    users: {
      alice: userFile("alice", alicePassword, "max_parallel = 9\n"),
      rich: userFile(
        "rich",
        alicePassword,
        'limits = [{ metric = "cost", per = "month", max = 2.5, currency = "CNY" }, { metric = "cost", per = "day", max = 1, currency = "CNY" }]\n',
      ),
      spent: userFile("spent", alicePassword, 'limits = [{ metric = "requests", per = "month", max = 0 }]\n'),
    },
    config: `[models]\naliases = { ${aliases} }\n`,
  });
  token = await proxy.login();
});

afterAll(() => proxy.dispose());

const get = (path: string, headers: Readonly<Record<string, string>> = {}, credential = token) =>
  jsonOf<Record<string, unknown>>(fetch(proxy.url + path, { headers: { ...bearer(credential), ...headers } }));

async function keyFor(models: readonly string[]): Promise<string> {
  const made = await jsonOf<{ key: string }>(post(`${proxy.url}/auth/keys`, { name: "scoped", models }, bearer(token)));
  return made.body.key;
}

describe("H3: a chat that doesn't say whether it streams", () => {
  it.each<[string | undefined, boolean]>([
    ["application/json", true],
    ["Application/JSON; charset=utf-8", true],
    ["application/json, text/plain", true],
    ["application/*", true],
    ["application/json, */*;q=0", true],
    ["application/json, text/event-stream;q=0.0", true],
    [undefined, false],
    ["", false],
    ["*/*", false],
    ["application/json, text/plain, */*", false],
    ["application/json, text/event-stream", false],
    ["text/event-stream", false],
    ["application/json;q=0.1, TEXT/EVENT-STREAM", false],
    ["application/json, text/*", false],
    ["application/json;q=0", false],
    ["text/html", false],
  ])("is JSON alone by Accept %s: %s", (accept, expected) => {
    expect(takesJsonAlone(accept)).toBe(expected);
  });

  async function kindOf(path: string, accept: string, body: object = {}, at = proxy): Promise<string> {
    const credential = at === proxy ? token : await at.login();
    const answer = await post(at.url + path, { ...good, ...body }, { ...bearer(credential), accept });
    expect(answer.status).toBe(200);
    await answer.text();
    return answer.headers.get("content-type")?.split(";")[0] ?? "";
  }

  it("gets JSON where it takes nothing else, else events", async () => {
    expect(await kindOf("/chat/completions", "application/json")).toBe("application/json");
    expect(await kindOf("/chat/completions", "*/*")).toBe("text/event-stream");
    expect(await kindOf("/chat/completions", "text/event-stream")).toBe("text/event-stream");
    expect(await kindOf("/chat/completions", "application/json", { stream: null })).toBe("application/json");
  });

  it("is what it says, where it says it, whatever it accepts", async () => {
    expect(await kindOf("/chat/completions", "application/json", { stream: true })).toBe("text/event-stream");
    expect(await kindOf("/chat/completions", "text/event-stream", { stream: false })).toBe("application/json");
    expect(await kindOf("/v1/chat/completions", "text/event-stream")).toBe("application/json");
    expect(await kindOf("/v1/chat/completions", "application/json", { stream: true })).toBe("text/event-stream");
  });

  it("gets JSON where the config says so", async () => {
    const quiet = await startProxy({ config: "[chat]\nstream_default = false\n" });
    expect(await kindOf("/chat/completions", "*/*", {}, quiet)).toBe("application/json");
    expect(await kindOf("/chat/completions", "*/*", { stream: true }, quiet)).toBe("text/event-stream");
    await quiet.dispose();
  });
});

describe("H5: the models", () => {
  interface List {
    readonly data: readonly { readonly id: string }[];
  }

  it("can be retrieved one by one, each that is listed", async () => {
    const { body } = await jsonOf<List>(fetch(`${proxy.url}/v1/models`, { headers: bearer(token) }));
    const ids = body.data.map(({ id }) => id);
    for (const id of ["tin-5", ...odd]) expect(ids).toContain(id);
    for (const id of ids) {
      for (const path of ["/v1/models", "/models", "//v1//models/"]) {
        const found = await get(`${path}/${encodeURIComponent(id)}`);
        expect(found, id).toMatchObject({ status: 200, body: { id, object: "model", owned_by: expect.any(String) } });
      }
    }
  });

  it.each([
    ["org/model-1", "/v1/models/org/model-1"],
    ["org/model-1", "/v1/models/org%2fmodel-1"],
    ["org/model-1", "/v1/models/%6Frg/model%2D1/"],
    ["c:d@e+f", "/v1/models/c:d@e+f"],
    ["c:d@e+f", "/v1/models/c%3Ad%40e%2Bf"],
    ["tin-5", "/models/tin-5?x=y"],
  ])("are found however they are written: %s", async (id, path) => {
    expect(await get(path)).toMatchObject({ status: 200, body: { id } });
  });

  it.each(["tin-6", "TIN-5", "tin-5%20", "tin-5/x", "org", "m".repeat(200)])(
    "that nobody has are 404: %.20s",
    async (name) => {
      const answer = await answerOf(await fetch(`${proxy.url}/v1/models/${name}`, { headers: bearer(token) }));
      expectRefusal(proxy, answer, "model_not_found", "model");
    },
  );

  it("are those of the API key", async () => {
    const key = await keyFor(["tin-*"]);
    expect(await get("/v1/models", {}, key)).toMatchObject({ body: { data: [{ id: "tin-5" }] } });
    expect((await get("/v1/models/tin-5", {}, key)).status).toBe(200);
    expect(await get("/v1/models/a%20b", {}, key)).toMatchObject({
      status: 404,
      body: { error: { code: "model_not_found" } },
    });
    expect((await get("/v1/models/tin-5", {}, "dsp_made-up")).status).toBe(401);
  });

  const anthropic = { id: "tin-5", type: "model", display_name: "tin-5", created_at: expect.stringMatching(/Z$/) };

  it.each([
    ["/anthropic/v1/models", {}],
    ["/v1/models", { "anthropic-version": "2026-10-21" }],
    ["/models?limit=1000", { "anthropic-version": "2023-06-01" }],
  ])("are in Anthropic's shape for its clients: %s", async (path, headers) => {
    const key = await keyFor(["tin-*"]);
    const list = await jsonOf(fetch(proxy.url + path, { headers: { "x-api-key": key, ...headers } }));
    expect(list.body).toEqual({ data: [anthropic], has_more: false, first_id: "tin-5", last_id: "tin-5" });
    const [base = ""] = path.split("?");
    expect((await get(`${base}/tin-5`, headers)).body).toEqual(anthropic);
    expect(await get(`${base}/tin-6`, headers)).toMatchObject({
      status: 404,
      body: { type: "error", error: { type: "not_found_error" } },
    });
    expect(await get(base, headers, "made-up")).toMatchObject({ status: 401, body: { type: "error" } });
  });
});

describe("H6: tokens of a prompt in Anthropic's shape", () => {
  const count = async (body: object, credential = token, path = "/anthropic/v1/messages/count_tokens?beta=true") =>
    jsonOf<{ input_tokens: number }>(
      post(proxy.url + path, body, { "x-api-key": credential, "anthropic-version": "2023-06-01" }),
    );

  it("are estimated, with tools and system, by their length", async () => {
    const small = await count(good);
    expect(small).toEqual({ status: 200, body: { input_tokens: expect.any(Number) } });
    expect((await count(good, token, "/v1/messages/count_tokens")).body).toEqual(small.body);
    const long = await count({ ...good, system: "word ".repeat(1000), tools: [{ name: "a", input_schema: {} }] });
    expect(long.body.input_tokens - small.body.input_tokens).toBeGreaterThan(800);
    expect(long.body.input_tokens - small.body.input_tokens).toBeLessThan(2500);
  });

  it("don't grow with the bytes of an image, wherever it is", async () => {
    const image = (bytes: number) => ({
      type: "image",
      source: { type: "base64", media_type: "image/png", data: "A".repeat(bytes) },
    });
    const withContent = (content: unknown) => count({ ...good, messages: [{ role: "user", content }] });
    for (const wrap of [
      (bytes: number) => [image(bytes)],
      (bytes: number) => [{ type: "tool_result", tool_use_id: "t", content: [image(bytes)] }],
    ]) {
      const large = await withContent(wrap(400_000));
      expect(large.body.input_tokens).toBe((await withContent(wrap(40))).body.input_tokens);
      expect(large.body.input_tokens).toBeGreaterThan(1000);
    }
  });

  it("cost nothing, and are refused like a message", async () => {
    const used = async () => JSON.stringify((await get("/auth/quota")).body);
    const before = await used();
    await count(good);
    expect(await used()).toBe(before);
    const key = await keyFor(["tin-*"]);
    expect(await count(good, key)).toMatchObject({
      status: 403,
      body: { type: "error", error: { type: "permission_error" } },
    });
    expect(await count({ ...good, model: "nobody-has" })).toMatchObject({ status: 404, body: { type: "error" } });
    expect(await count({ ...good, messages: [] })).toMatchObject({
      status: 400,
      body: { error: { param: "messages" } },
    });
    expect(await count(good, "made-up")).toMatchObject({ status: 401, body: { type: "error" } });
  });
});

describe("H10: what DeepSeek's clients ask for", () => {
  it("a balance is what the user may still spend", async () => {
    const rich = await proxy.login("rich");
    expect((await get("/user/balance", {}, rich)).body).toEqual({
      is_available: true,
      balance_infos: [{ currency: "CNY", total_balance: "1", granted_balance: "0", topped_up_balance: "1" }],
    });
    expect((await get("/user/balance")).body).toEqual({ is_available: true, balance_infos: [] });
    expect((await get("/user/balance", {}, await proxy.login("spent"))).body).toMatchObject({ is_available: false });
    expect((await get("/user/balance", {}, "made-up")).status).toBe(401);
  });

  it("Anthropic's messages are at /v1/messages too", async () => {
    const answer = await post(`${proxy.url}/v1/messages`, { ...good, max_tokens: 20 }, { "x-api-key": token });
    expect([answer.status, await answer.json()]).toMatchObject([200, { type: "message", role: "assistant" }]);
    const refused = await jsonOf(post(`${proxy.url}/v1/messages`, {}, { "x-api-key": token }));
    expect(refused).toMatchObject({ status: 400, body: { type: "error", error: { param: "model" } } });
  });
});

describe("H10: the role developer", () => {
  const messages = [
    { role: "developer", content: 'Be brief. "role":"developer"' },
    { role: "user", content: [{ type: "text", text: "hi", role: "developer" }] },
    { content: "again", role: "developer" },
  ];

  async function sentTo(kind: "deepseek" | "zhipu" | "openai", path: string, body: object): Promise<unknown> {
    const upstream = await startScriptedUpstream();
    const own = await startProxy({ upstreamUrl: upstream.url, kind });
    const answering = post(own.url + path, { ...good, ...body }, bearer(await own.login()));
    const call = await upstream.next();
    await call.finish();
    expect((await answering).status).toBe(200);
    await own.dispose();
    await upstream.close();
    return (call.body as { messages: unknown }).messages;
  }

  it.each([
    ["deepseek", "/v1/chat/completions"],
    ["deepseek", "/beta/chat/completions"],
    ["zhipu", "/chat/completions"],
  ] as const)("is system to %s on %s", async (kind, path) => {
    expect(await sentTo(kind, path, { messages })).toEqual([
      { ...messages[0], role: "system" },
      messages[1],
      { ...messages[2], role: "system" },
    ]);
  });

  it("stays as it is for a server that speaks OpenAI's language", async () => {
    expect(await sentTo("openai", "/v1/chat/completions", { messages })).toEqual(messages);
  });

  it("is served by the simulator, which refuses it as DeepSeek does", async () => {
    const answer = await post(`${proxy.url}/v1/chat/completions`, { ...good, messages }, bearer(token));
    expect(answer.status).toBe(200);
  });
});
