import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { afterEach, describe, expect, it, onTestFinished } from "vitest";
import {
  createClient,
  ProxyError,
  StreamBrokenError,
  type ChatUsage,
  type ClientOptions,
} from "../../clients/typescript/src/index.ts";
import { eventually } from "../support/eventually.ts";
import { usedRequests } from "../support/quota.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";
import { alicePassword, startProxy, userFile, type ProxyOptions, type RunningProxy } from "../support/start-proxy.ts";

const messages = [{ role: "user", content: "Say hello." }];

describe("the TypeScript client", () => {
  let proxy: RunningProxy;
  let upstream: ScriptedUpstream | undefined;

  afterEach(async () => {
    await proxy.dispose();
    await upstream?.close();
    upstream = undefined;
  });

  const start = async (options: ProxyOptions = {}): Promise<RunningProxy> => (proxy = await startProxy(options));
  const client = (options: Partial<ClientOptions> = {}) =>
    createClient({
      baseUrl: proxy.url,
      username: "alice",
      password: alicePassword,
      retry: { sleep: () => Promise.resolve() },
      ...options,
    });
  const used = async (): Promise<number> => usedRequests(proxy, await proxy.login());

  it("streams chunks and calls back", async () => {
    await start();
    let text = "";
    let reasoning = "";
    const usages: ChatUsage[] = [];
    const chat = client().chat(
      { model: "deepseek-v4-pro", messages, max_tokens: 30 },
      {
        onToken: (piece) => (text += piece),
        onReasoning: (piece) => (reasoning += piece),
        onUsage: (usage) => usages.push(usage),
      },
    );
    const result = await chat.result();
    expect(result.text).toBe(text);
    expect(result.reasoning).toBe(reasoning);
    expect(result.finishReason).not.toBeNull();
    expect(result.usage?.total_tokens).toBeGreaterThan(0);
    expect(usages).toHaveLength(1);
    await expect(chat.result()).rejects.toThrow("read once");
  });

  it.each(["sim-truncate", "sim-reset-mid", "sim-error-event:3", "sim-bad-json"])(
    "throws what has come of a broken answer, and doesn't ask again: %s",
    async (model) => {
      await start();
      const retries: unknown[] = [];
      const pieces: string[] = [];
      const chat = client().chat(
        { model, messages },
        { onRetry: (retry) => retries.push(retry), onToken: (piece) => pieces.push(piece) },
      );
      const error: unknown = await chat.result().catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(StreamBrokenError);
      expect(error).toMatchObject({ partial: { finishReason: null, text: pieces.join("") } });
      expect(pieces.length).toBeGreaterThan(0);
      expect(retries).toEqual([]);
    },
  );

  it("repeats what was refused before a model was asked, and is charged once", async () => {
    upstream = await startScriptedUpstream();
    await start({
      upstreamUrl: upstream.url,
      users: { alice: userFile("alice", alicePassword, "max_parallel = 1\n") },
      config: "[concurrency]\nmax_wait_ms = 0\n",
    });
    const own = client({ retry: { maxRetries: 3, sleep: () => freed } });
    const first = own.chat({ model: "deepseek-flash", messages }).result();
    const running = await upstream.next();
    const codes: string[] = [];
    let free: () => void = () => undefined;
    const freed = new Promise<void>((resolve) => (free = resolve));
    const second = own
      .chat({ model: "deepseek-flash", messages }, { onRetry: ({ error }) => codes.push(error.code) })
      .result();
    await eventually(() => {
      expect(codes).toEqual(["concurrency_exceeded"]);
    });
    await running.delta("one");
    await running.finish();
    expect((await first).text).toBe("one");
    free();
    const repeated = await upstream.next();
    await repeated.delta("two");
    await repeated.finish();
    expect((await second).text).toBe("two");
    expect(await used()).toBe(2);
  });

  it("doesn't repeat a chat whose answer may have been charged, wherever the connection is cut", async () => {
    await start();
    let sent = 0;
    const cut: typeof globalThis.fetch = (input, init) => {
      if (!String(input instanceof Request ? input.url : input).includes("/chat/"))
        return globalThis.fetch(input, init);
      sent++;
      return Promise.reject(
        new TypeError("fetch failed", { cause: Object.assign(new Error(), { code: "ECONNRESET" }) }),
      );
    };
    const chat = client({ fetch: cut }).chat({ model: "sim-fast", messages });
    await expect(chat.result()).rejects.toMatchObject({ name: "ConnectionError", code: "connection_lost" });
    expect(sent).toBe(1);
  });

  it("repeats where no server was reached", async () => {
    await start();
    const login = await proxy.login();
    const { url } = proxy;
    await proxy.stop();
    const retries: number[] = [];
    const gone = createClient({
      baseUrl: url,
      apiKey: login,
      retry: { sleep: () => Promise.resolve() },
      onRetry: ({ retry }) => retries.push(retry),
    });
    await expect(gone.quota()).rejects.toMatchObject({ name: "ConnectionError", code: "connection_failed" });
    expect(retries).toEqual([1, 2]);
  });

  it("warns of a quota that is nearly used, and throws when it is", async () => {
    await start({ config: "[quota.tiers]\nbasic = { requests = 1 }\n" });
    const warnings: string[] = [];
    await client()
      .chat({ model: "sim-fast", messages }, { onQuotaWarning: (text) => warnings.push(text) })
      .result();
    expect(warnings).toEqual(["100% of requests per month used"]);
    const refused = client().chat({ model: "sim-fast", messages }).result();
    await expect(refused).rejects.toMatchObject({
      name: "QuotaExceededError",
      code: "quota_exceeded",
      status: 402,
      details: { metric: "requests" },
    });
    const { limits } = await client().quota();
    expect(limits[0]).toMatchObject({ metric: "requests", used: 1, remaining: 0 });
  });

  it("ends the request when its caller stops reading", async () => {
    upstream = await startScriptedUpstream();
    await start({ upstreamUrl: upstream.url, config: "[abort]\ndrain_seconds = 0\n" });
    const iterator = client().chat({ model: "deepseek-flash", messages })[Symbol.asyncIterator]();
    const next = iterator.next();
    const call = await upstream.next();
    await call.delta("one");
    expect((await next).done).toBe(false);
    await iterator.return?.();
    await call.closed;
    expect(call.left).toBe(true);
  });

  it("makes, lists and deletes keys, and tells usage and models", async () => {
    await start();
    const own = client();
    const made = await own.keys.create({ name: "laptop" });
    expect(made.key).toMatch(/^dsp_/);
    const withKey = client({ apiKey: made.key });
    await withKey.chat({ model: "sim-fast", messages }).result();
    expect(await withKey.quota()).toMatchObject({ username: "alice" });
    await expect(withKey.keys.list()).rejects.toMatchObject({ name: "ForbiddenError", code: "forbidden" });
    expect(await own.usage({ by: "model" })).toHaveProperty("rows");
    expect((await own.models()).length).toBeGreaterThan(0);
    expect((await own.keys.list()).map(({ name }) => name)).toEqual(["laptop"]);
    await own.keys.delete(made.id);
    expect(await own.keys.list()).toEqual([]);
    await own.logout();
  });

  it("administers users", async () => {
    await start({
      users: { root: userFile("root", alicePassword, 'roles = ["admin"]\n') },
      config: '[admin]\nallow = ["127.0.0.1"]\n',
    });
    const { admin } = client({ username: "root" });
    await admin.createUser({ username: "bob", quota_tier: "basic" });
    expect(await admin.user("bob")).toMatchObject({ username: "bob" });
    await admin.updateUser("bob", { quota_tier: "premium" });
    await expect(admin.createUser({ username: "bob", quota_tier: "basic" })).rejects.toMatchObject({
      code: "conflict",
      name: "InvalidRequestError",
    });
    await admin.deleteUser("bob");
    await expect(admin.user("bob")).rejects.toMatchObject({ code: "not_found" });
  });
});

describe("the TypeScript client, where something else than the proxy answers", () => {
  it.each([
    ["half of one", "200 OK", "application/json", "{", "connection_lost"],
    ["half of an error", "503 Busy", "application/json", "{", "connection_lost"],
    ["a page of somebody else", "200 OK", "text/html", "<p>Hi</p>", "not_json"],
  ])("throws an error of its own where %s is the answer", async (_, status, type, body, code) => {
    const length = body === "{" ? 99 : body.length;
    const server = createServer((socket) => {
      socket.once("data", () => {
        socket.end(`HTTP/1.1 ${status}\r\ncontent-type: ${type}\r\ncontent-length: ${length}\r\n\r\n${body}`);
      });
    }).listen(0, "127.0.0.1");
    onTestFinished(() => void server.close());
    await once(server, "listening");
    const baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    for (const login of [{ apiKey: "dsp_x" }, { username: "alice", password: "x" }]) {
      const client = createClient({ baseUrl, ...login, retry: { maxRetries: 0 } });
      const failure: unknown = await client.quota().catch((error: unknown) => error);
      expect(failure).toBeInstanceOf(ProxyError);
      expect(failure).toMatchObject({ code });
      if (code !== "connection_lost") continue;
      const chat = client.chat({ model: "sim-fast", messages }).result();
      expect(await chat.catch((error: unknown) => error)).toBeInstanceOf(ProxyError);
    }
  });
});
