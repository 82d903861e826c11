import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import {
  type ChatCallbacks,
  createClient,
  createMemoryStore,
  type ProxyClient,
  ProxyError,
  StreamBrokenError,
} from "../../clients/typescript/src/index.ts";

/** What a version of the proxy has answered: scripts/record-client-fixtures.mjs wrote it down. */
interface Exchange {
  readonly request: {
    readonly method: string;
    readonly path: string;
    readonly body?: Readonly<Record<string, unknown>>;
  };
  readonly response: {
    readonly status: number;
    readonly headers: Readonly<Record<string, string>>;
    readonly body: string;
  };
}

interface RecordedError {
  readonly error: { readonly code: string; readonly message: string; readonly details?: object };
}

const folder = new URL("../../clients/fixtures/", import.meta.url);
const versions = readdirSync(folder);
const classes: Readonly<Record<number, string>> = {
  400: "InvalidRequestError",
  401: "AuthenticationError",
  402: "QuotaExceededError",
  403: "ForbiddenError",
  404: "InvalidRequestError",
  405: "InvalidRequestError",
  429: "RateLimitError",
  502: "UnavailableError",
  503: "UnavailableError",
};

it("has fixtures of no more than the last two versions", () => {
  expect([1, 2]).toContain(versions.length);
});

describe.each(versions)("the TypeScript client with what proxy %s answered", (version) => {
  const read = (name: string): Exchange =>
    JSON.parse(readFileSync(new URL(`${version}/${name}.json`, folder), "utf8")) as Exchange;

  /** A client that gets this answer to all requests but those for tokens. */
  function clientOf(name: string, tokens = "login"): { readonly client: ProxyClient; readonly exchange: Exchange } {
    const exchange = read(name);
    const replay: typeof globalThis.fetch = (input) => {
      const isToken = /\/auth\/(login|refresh)$/.test(new Request(input).url);
      const { status, headers, body } = read(isToken ? tokens : name).response;
      return Promise.resolve(new Response(body, { status, headers }));
    };
    const access = { baseUrl: "http://proxy.test", username: "alice", password: "any" };
    return { client: createClient({ ...access, fetch: replay, retry: { maxRetries: 0 } }), exchange };
  }

  function chat(name: string, callbacks: ChatCallbacks = {}): Promise<unknown> {
    const { client, exchange } = clientOf(name);
    const request = { model: "m", messages: [], ...exchange.request.body };
    return client
      .chat(request, callbacks)
      .result()
      .catch((error: unknown) => error);
  }

  it("logs in and refreshes", async () => {
    const store = createMemoryStore();
    const send = (name: string): typeof globalThis.fetch => {
      const { status, headers, body } = read(name).response;
      return () => Promise.resolve(new Response(body, { status, headers }));
    };
    let now = 0;
    const access = { baseUrl: "http://proxy.test", username: "alice", password: "any", store, now: () => now };
    await createClient({ ...access, fetch: send("login") }).quota();
    const first = await store.load();
    expect(first).toMatchObject({ accessToken: "recorded-access-token", refreshToken: "recorded-refresh-token" });
    now = first?.expiresAt ?? 0;
    await createClient({ ...access, fetch: send("refresh") }).quota();
    expect((await store.load())?.expiresAt).toBeGreaterThan(now);
  });

  it("reads quota, usage, balance, models and keys", async () => {
    expect((await clientOf("quota").client.quota()).limits[0]).toMatchObject({ metric: "requests", max: 100_000 });
    expect(await clientOf("usage").client.usage()).toHaveProperty("rows");
    expect(await clientOf("balance").client.balance()).toHaveProperty("is_available");
    expect((await clientOf("models").client.models()).map(({ id }) => id)).toContain("deepseek-flash");
    expect((await clientOf("keys").client.keys.list())[0]).toMatchObject({ name: "laptop", expires_at: null });
    expect((await clientOf("key-created").client.keys.create({ name: "laptop" })).key).toBe("dsp_recorded");
  });

  it("reads a stream with reasoning and usage, and the warning about a quota", async () => {
    expect(await chat("stream-reasoning")).toMatchObject({
      reasoning: expect.stringMatching(/./),
      text: expect.stringMatching(/./),
      finishReason: "length",
      usage: { completion_tokens: 30 },
    });
    expect(await chat("stream-usage-asked")).toMatchObject({ usage: { total_tokens: expect.any(Number) } });
    const warnings: string[] = [];
    await chat("stream-quota-warning", { onQuotaWarning: (warning) => warnings.push(warning) });
    expect(warnings).toEqual(["100% of requests per month used"]);
  });

  it.each(["stream-truncated", "stream-error"])("takes %s for an answer that broke off", async (name) => {
    const error = await chat(name);
    expect(error).toBeInstanceOf(StreamBrokenError);
    expect(error).toMatchObject({
      code: /"code":"(\w+)"/.exec(read(name).response.body)?.[1],
      partial: { finishReason: null },
    });
  });

  const errors = readdirSync(new URL(`${version}/`, folder)).filter((name) => name.startsWith("error-"));

  it.each(errors.map((file) => file.replace(".json", "")))("%s has its class, code and details", async (name) => {
    const { request, response } = read(name);
    const { client } = clientOf(name, name === "error-401-credentials" ? name : "login");
    const error = await (request.body === undefined ? client.quota() : chat(name)).catch((thrown: unknown) => thrown);
    const { code, message, details = {} } = (JSON.parse(response.body) as RecordedError).error;
    expect(error).toBeInstanceOf(ProxyError);
    const { "retry-after": after, "x-should-retry": again } = response.headers;
    expect(error).toMatchObject({
      name: classes[response.status],
      status: response.status,
      code,
      message,
      details,
      traceId: response.headers["x-request-id"],
      retryAfterSeconds: after === undefined ? undefined : Number(after),
      shouldRetry: again === undefined ? undefined : again === "true",
    });
  });
});
