import { createHash, createHmac, randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseConfig } from "../../src/config/load.ts";
import { jsonOf } from "../support/accounts.ts";
import { rawRequest, sendRaw, type RawAnswer } from "../support/raw-http.ts";
import { answerOf, expectRefusal } from "../support/refusals.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";
import { bearer, post, startProxy, type RunningProxy } from "../support/start-proxy.ts";

const json = "Content-Type: application/json";
const page = "https://app.example";
const good = { model: "deepseek-flash", messages: [{ role: "user", content: "hi" }] };

let upstream: ScriptedUpstream;
let proxy: RunningProxy;
let token: string;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  proxy = await startProxy({
    upstreamUrl: upstream.url,
    server: `cors_origins = ["${page}", "tauri://localhost"]\nbody_limit_bytes = 65536\nrequest_seconds = 1\n`,
  });
  token = await proxy.login();
});

afterAll(async () => {
  await proxy.dispose();
  await upstream.close();
});

async function raw(bytes: string | Buffer, url = proxy.url): Promise<RawAnswer> {
  const connection = sendRaw(url, bytes);
  const answer = await connection.answer();
  connection.socket.destroy();
  return answer;
}

describe("H2: a browser", () => {
  const preflight = (path: string, origin = page, url = proxy.url) =>
    fetch(url + path, {
      method: "OPTIONS",
      headers: {
        origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-os",
      },
    });

  const readable = {
    "access-control-allow-origin": page,
    "access-control-expose-headers": expect.stringMatching(/x-request-id.*retry-after.*x-quota-remaining/),
    vary: expect.stringContaining("Origin"),
  };

  it.each([
    "/v1/chat/completions",
    "/chat/completions",
    "/v1/models",
    "/anthropic/v1/messages",
    "/auth/login",
    "/auth/keys/abc",
    "/livez",
    "//v1//models/",
    "/nowhere",
  ])("may ask beforehand, without a token: %s", async (path) => {
    const answer = await preflight(path);
    expect(answer.status).toBe(204);
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      ...readable,
      "access-control-allow-headers": "authorization,content-type,x-stainless-os",
      "access-control-allow-methods": expect.stringContaining("POST"),
      "access-control-max-age": expect.stringMatching(/^\d+$/),
    });
    expect(answer.headers.has("access-control-allow-credentials")).toBe(false);
  });

  it.each(["/admin/users", "/admin", "//admin/users", "/%61dmin/users", "/admin?a=b"])(
    "may never read what is under /admin: %s",
    async (path) => {
      for (const answer of [await preflight(path), await fetch(proxy.url + path, { headers: { origin: page } })]) {
        expect(answer.status).toBeGreaterThanOrEqual(400);
        expect(answer.headers.has("access-control-allow-origin")).toBe(false);
      }
    },
  );

  it.each(["https://evil.example", "https://app.example.evil.example", "http://app.example", "null", `${page}:8443`])(
    "is told nothing for an origin that isn't listed: %s",
    async (origin) => {
      const asked = await preflight("/v1/models", origin);
      expect(asked.status).toBe(405);
      const got = await fetch(`${proxy.url}/livez`, { headers: { origin } });
      expect(got.status).toBe(200);
      for (const { headers } of [asked, got]) {
        expect(headers.has("access-control-allow-origin")).toBe(false);
        expect(headers.get("vary")).toContain("Origin");
      }
    },
  );

  it("may read a stream", async () => {
    const answering = post(
      `${proxy.url}/v1/chat/completions`,
      { ...good, stream: true },
      { ...bearer(token), origin: page },
    );
    const call = await upstream.next();
    expect(call.headers.origin).toBeUndefined();
    await call.delta("hello");
    await call.finish();
    const answer = await answering;
    const headers = Object.fromEntries(answer.headers);
    expect(headers).toMatchObject({ ...readable, "content-type": "text/event-stream; charset=utf-8" });
    expect(headers).toMatchObject({ "x-quota-remaining": expect.any(String), "x-request-id": expect.any(String) });
    expect(await answer.text()).toContain("[DONE]");
  });

  it("may read one JSON, from an app's own scheme", async () => {
    const origin = "tauri://localhost";
    const answering = post(`${proxy.url}/v1/chat/completions`, good, { ...bearer(token), origin });
    await (await upstream.next()).finish();
    expect((await answering).headers.get("access-control-allow-origin")).toBe(origin);
  });

  it.each<[string, number, string]>([
    ["a 400", 400, rawRequest("POST /auth/login", [`Origin: ${page}`, json], "{")],
    ["a 401", 401, rawRequest("POST /v1/chat/completions", [`Origin: ${page}`, json], "{}")],
    ["a 404", 404, rawRequest("GET /nowhere", [`Origin: ${page}`])],
    ["a 404 of a path that can't be decoded", 404, rawRequest("GET /%zz", [`Origin: ${page}`])],
    ["a 405", 405, rawRequest("PUT /v1/models", [`Origin: ${page}`])],
    ["a 413", 413, rawRequest("POST /auth/login", [`Origin: ${page}`, json, "Content-Length: 99999"])],
    ["a 415", 415, rawRequest("POST /auth/login", [`Origin: ${page}`, "Content-Type: text/plain"], "x")],
    ["a 408", 408, rawRequest("POST /auth/login", [`Origin: ${page}`, json, "Content-Length: 9"])],
    ["a 431", 431, rawRequest("GET /livez", [`origin:${page}`, `X-Long: ${"a".repeat(20_000)}`])],
    ["a 400 of the parser", 400, rawRequest("GET /livez", [`ORIGIN: ${page} `, "Bad Header: x"])],
  ])("may read %s", async (_what, status, bytes) => {
    const answer = await raw(bytes);
    expect(answer.status).toBe(status);
    expect(answer.headers).toMatchObject({ ...readable, "x-request-id": expect.any(String) });
    const other = await raw(bytes.replace(page, "https://evil.example"));
    expect(other.status).toBe(status);
    expect(other.headers).not.toHaveProperty("access-control-allow-origin");
  });

  it("is told nothing at all where no origin is listed", async () => {
    const plain = await startProxy();
    const asked = await preflight("/v1/models", page, plain.url);
    expect(asked.status).toBe(405);
    for (const { headers } of [asked, await fetch(`${plain.url}/livez`, { headers: { origin: page } })]) {
      expect([...headers.keys()].filter((name) => /^access-control|vary/.test(name))).toEqual([]);
    }
    await plain.dispose();
  });

  it("may come from anywhere where the config says so", async () => {
    const open = await startProxy({ server: 'cors_origins = "*"\n' });
    expect((await preflight("/v1/models", "null", open.url)).headers.get("access-control-allow-origin")).toBe("*");
    const refused = await fetch(`${open.url}/v1/models`, { headers: { origin: "https://any.example" } });
    expect([refused.status, refused.headers.get("access-control-allow-origin")]).toEqual([401, "*"]);
    expect((await preflight("/admin/users", page, open.url)).headers.has("access-control-allow-origin")).toBe(false);
    await open.dispose();
  });

  it.each(["https://app.example/", "app.example", "https://App.example", "https://app.example/path", ""])(
    "can't be let in by what is no origin: %s",
    (origin) => {
      expect(() => parseConfig(`[server]\ncors_origins = ["${origin}"]`, "x")).toThrow(
        /server\.cors_origins\.0: expected an origin such as https:\/\/app\.example/,
      );
    },
  );
});

describe("H4: slashes too many", () => {
  it.each(["/auth/quota/", "//auth/quota", "/auth//quota//", "/auth/quota/?a=//"])(
    "lead nowhere else: GET %s",
    async (path) => {
      expectRefusal(proxy, await answerOf(await fetch(proxy.url + path)), "missing_token");
      const asking = fetch(proxy.url + path, { headers: bearer(token) });
      expect((await asking).status).toBe(200);
    },
  );

  it.each(["/v1/chat/completions/", "/v1//chat///completions", "///chat/completions"])(
    "are ignored where chats are asked: POST %s",
    async (path) => {
      const answering = post(proxy.url + path, { ...good, stream: false }, bearer(token));
      await (await upstream.next()).finish();
      expect((await answering).status).toBe(200);
    },
  );

  it.each(["/admin/users/", "//admin//users", "/admin/users//alice/"])("open no door: %s", async (path) => {
    expectRefusal(proxy, await answerOf(await fetch(proxy.url + path)), "missing_token");
    const own = await answerOf(await fetch(proxy.url + path, { headers: bearer(token) }));
    expectRefusal(proxy, own, "forbidden");
  });

  it("may be left out of what is signed, or not", async () => {
    const terms = { name: "signed", require_signature: true };
    const made = await jsonOf<{ key: string; signing_secret: string }>(
      post(`${proxy.url}/auth/keys`, terms, bearer(token)),
    );
    const send = async (sent: string, signed: string): Promise<number> => {
      const [timestamp, nonce] = [String(Math.floor(Date.now() / 1000)), randomBytes(16).toString("hex")];
      const hash = createHash("sha256").update("").digest("hex");
      const text = ["GET", signed, timestamp, nonce, hash].join("\n");
      const signature = createHmac("sha256", made.body.signing_secret).update(text).digest("hex");
      const headers = { "x-signature-timestamp": timestamp, "x-signature-nonce": nonce, "x-signature": signature };
      return (await fetch(proxy.url + sent, { headers: { ...bearer(made.body.key), ...headers } })).status;
    };
    expect(await send("/auth//quota/?a=//b", "/auth//quota/?a=//b")).toBe(200);
    expect(await send("/auth//quota/?a=//b", "/auth/quota?a=//b")).toBe(200);
    expect(await send("/auth//quota/?a=//b", "/auth/quota?a=/b")).toBe(401);
    expect(await send("/auth/quota", "/auth//quota")).toBe(401);
    expect(await send("/auth//quota", "/auth/usage")).toBe(401);
  });
});

describe("H6: an error below /anthropic", () => {
  const chunked = "Transfer-Encoding: chunked";
  const auth = () => `Authorization: Bearer ${token}`;

  it.each<[string, number, string, () => string]>([
    ["404", 404, "not_found_error", () => rawRequest("POST /anthropic/v1/complete", [json], "{}")],
    ["404 without a path below", 404, "not_found_error", () => rawRequest("GET /anthropic")],
    ["404 of a path that can't be decoded", 404, "not_found_error", () => rawRequest("GET /anthropic/%zz")],
    ["404 with slashes", 404, "not_found_error", () => rawRequest("GET //anthropic//x/")],
    ["404 with an escaped letter", 404, "not_found_error", () => rawRequest("GET /%61nthropic/x")],
    ["404 with a query", 404, "not_found_error", () => rawRequest("GET /anthropic?beta=true")],
    ["405", 405, "invalid_request_error", () => rawRequest("GET /anthropic/v1/messages", [auth()])],
    ["401", 401, "authentication_error", () => rawRequest("POST /anthropic/v1/messages", [json], "{}")],
    ["415", 415, "invalid_request_error", () => rawRequest("POST /anthropic/v1/messages", [auth()], "x")],
    [
      "413",
      413,
      "request_too_large",
      () => rawRequest("POST /anthropic/v1/messages", [auth(), json, "Content-Length: 65537"]),
    ],
    [
      "400 of the body",
      400,
      "invalid_request_error",
      () => rawRequest("POST /anthropic/v1/messages", [auth(), json], "{"),
    ],
    [
      "400 of a field",
      400,
      "invalid_request_error",
      () => rawRequest("POST /anthropic/v1/messages", [auth(), json], "{}"),
    ],
    [
      "400 of the parser",
      400,
      "invalid_request_error",
      () => rawRequest("POST /anthropic/v1/messages", ["Bad Header: x"]),
    ],
    [
      "400 of a chunk",
      400,
      "invalid_request_error",
      () => `${rawRequest("POST /anthropic/v1/messages", [auth(), json, chunked])}zz\r\n`,
    ],
    ["400 without a host", 400, "invalid_request_error", () => "GET /anthropic/v1/models HTTP/1.1\r\n\r\n"],
    [
      "408",
      408,
      "invalid_request_error",
      () => rawRequest("POST /anthropic/v1/messages", [auth(), json, "Content-Length: 9"]),
    ],
    [
      "431",
      431,
      "invalid_request_error",
      () => rawRequest("POST /anthropic/v1/messages", [`X: ${"a".repeat(20_000)}`]),
    ],
  ])("has Anthropic's shape: %s", async (_what, status, type, bytes) => {
    const answer = await raw(bytes());
    expect(answer.status).toBe(status);
    const body: unknown = JSON.parse(answer.body);
    expect(body).toEqual({
      type: "error",
      error: expect.objectContaining({ type, message: expect.any(String) }) as unknown,
      request_id: answer.headers["x-request-id"],
    });
  });

  it.each(["GET /anthropics", "GET /v1/anthropic", "GET /nowhere?/anthropic/"])(
    "is left alone elsewhere: %s",
    async (line) => {
      expectRefusal(proxy, await raw(rawRequest(line)), "not_found");
    },
  );
});

describe("H11: a known path with another method", () => {
  it.each([
    ["GET /v1/chat/completions", "POST"],
    ["PUT /chat/completions", "POST"],
    ["DELETE /auth/login", "POST"],
    ["PATCH /auth/keys/", "GET, HEAD, POST"],
    ["POST /v1/models", "GET, HEAD"],
    ["PUT /admin/users/alice", "DELETE, GET, HEAD, PATCH"],
    ["OPTIONS /v1/models", "GET, HEAD"],
    ["PROPFIND /livez", "GET, HEAD"],
  ])("gets 405 and what it takes: %s", async (line, allow) => {
    const answer = await raw(rawRequest(line));
    expectRefusal(proxy, answer, "method_not_allowed");
    expect(answer.headers.allow).toBe(allow);
  });

  it.each(["PUT /admin/users/alice/nothing", "GET /auth%2Flogin", "GET /auth", "OPTIONS *"])(
    "is no more than it seems: %s",
    async (line) => {
      expectRefusal(proxy, await raw(rawRequest(line)), "not_found");
    },
  );
});

describe("H10: the Responses API", () => {
  it.each(["GET /v1/responses/resp_1", "DELETE /responses/resp_1", "POST /v1/responses/resp_1/cancel"])(
    "keeps nothing, and says so: %s",
    async (line) => {
      const { message } = expectRefusal(proxy, await raw(rawRequest(line)), "not_found");
      expect(message).toContain("not kept");
    },
  );

  it.each(["/v1/responses", "/responses", "//v1/responses/"])(
    "refuses a WebSocket at %s, whoever asks",
    async (path) => {
      const upgrade = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: eA==",
      ];
      for (const headers of [[], upgrade]) {
        const answer = await raw(rawRequest(`GET ${path}`, headers));
        expectRefusal(proxy, answer, "upgrade_required");
        expect(answer).toMatchObject({ status: 426, headers: { upgrade: "HTTP/1.1", connection: "upgrade" } });
      }
    },
  );
});

describe("H11: a refused credential", () => {
  it.each(["sk-made-up", "dsp_made-up", "a.b.c"])(
    "is not asked for again, whatever it looks like: %s",
    async (credential) => {
      for (const headers of [bearer(credential), { "x-api-key": credential }, { "api-key": credential }]) {
        const answer = await answerOf(await fetch(`${proxy.url}/v1/models`, { headers }));
        expect(answer.headers["x-should-retry"]).toBe("false");
        const { error } = JSON.parse(answer.body) as { error: { code: string; message: string } };
        expect(error.code).toBe(credential.startsWith("dsp_") ? "invalid_api_key" : "invalid_token");
        expect(error.message).toMatch(/API key/);
        expect(error.message).not.toMatch(/log in/i);
      }
    },
  );
});

describe("H11: an answer to a request that is still on its way", () => {
  const size = 8 << 20;
  const head = (path: string, more: string[] = []) =>
    rawRequest(`POST ${path}`, [json, `Content-Length: ${size}`, "Connection: close", ...more]);

  it.each<[string, string, number, () => string[]]>([
    ["413", "/auth/login", 413, () => []],
    ["413 of a chat", "/v1/chat/completions", 413, () => [`Authorization: Bearer ${token}`]],
    ["401", "/v1/chat/completions", 401, () => []],
    ["404", "/nowhere", 404, () => []],
    ["405", "/v1/models", 405, () => []],
  ])("reaches a client that closes behind it and sends all before it reads: %s", async (_what, path, status, more) => {
    const connection = sendRaw(proxy.url, "");
    connection.socket.pause();
    connection.socket.write(head(path, more()));
    // A client that is reset in the middle gets an error here, and what was sent to it is lost.
    const error = await new Promise((resolve) => connection.socket.write(Buffer.alloc(size, " "), resolve));
    expect(error ?? null).toBeNull();
    connection.socket.resume();
    const answer = await connection.answer();
    expect(answer.status).toBe(status);
    expect(answer.headers.connection).toBe("close");
    await connection.closed;
  });
});
