import { once } from "node:events";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { usedRequests } from "../support/quota.ts";
import { rawRequest, sendRaw, type RawAnswer } from "../support/raw-http.ts";
import { expectNoTraces, expectRefusal } from "../support/refusals.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";
import { startProxy, type RunningProxy } from "../support/start-proxy.ts";

const json = "Content-Type: application/json";
const limit = 32 << 10;
const good = { model: "deepseek-flash", messages: [{ role: "user", content: "hi" }] };

describe("a body as nobody should send it", () => {
  let upstream: ScriptedUpstream;
  let proxy: RunningProxy;
  let token: string;
  let auth: string;

  beforeAll(async () => {
    upstream = await startScriptedUpstream();
    proxy = await startProxy({ upstreamUrl: upstream.url, server: `body_limit_bytes = ${limit}\n` });
    token = await proxy.login();
    auth = `Authorization: Bearer ${token}`;
  });

  afterEach(() => expectNoTraces(proxy, upstream, token));

  afterAll(async () => {
    await proxy.dispose();
    await upstream.close();
  });

  async function ask(bytes: string | Buffer): Promise<RawAnswer> {
    const connection = sendRaw(proxy.url, bytes);
    const answer = await connection.answer();
    connection.socket.destroy();
    return answer;
  }

  const chat = (body: string, headers = [json]): string =>
    rawRequest("POST /chat/completions", [auth, ...headers], body);
  const chatBytes = (body: Buffer): Buffer => {
    const head = rawRequest("POST /chat/completions", [auth, json, `Content-Length: ${body.length}`]);
    return Buffer.concat([Buffer.from(head), body]);
  };

  it.each([
    ["text/plain", ["Content-Type: text/plain"]],
    ["a form", ["Content-Type: application/x-www-form-urlencoded"]],
    ["a type that only begins like JSON's", ["Content-Type: application/jsonx"]],
    ["a type that is none", ["Content-Type: ;;;"]],
    ["no type", []],
  ])("answers %s with 415", async (_what, headers) => {
    expectRefusal(proxy, await ask(chat(JSON.stringify(good), headers)), "unsupported_media_type");
  });

  it.each([
    ["invalid UTF-8", () => chatBytes(Buffer.from('{"model":"\xff"}', "latin1")), null],
    ["a byte order mark", () => chat(`\uFEFF${JSON.stringify(good)}`), null],
    ["UTF-16", () => chatBytes(Buffer.from(JSON.stringify(good), "utf16le")), null],
    ["half a body", () => chat('{"model":"deepseek-flash",'), null],
    ["nothing at all", () => rawRequest("POST /chat/completions", [auth]), null],
    ["no bytes of JSON", () => chat(""), null],
    ["a list", () => chat("[]"), null],
    ["null", () => chat("null"), null],
    ["10,000 levels of nesting", () => chat(`{"a":${"[".repeat(10_000)}${"]".repeat(10_000)}}`), null],
    ["a key twice", () => chat('{"model":"a","model":"b"}'), "model"],
    ["a key twice, once escaped", () => chat('{"model":"a","\\u006dodel":"b"}'), "model"],
    ["__proto__", () => chat('{"__proto__":{"model":"a"}}'), "__proto__"],
    ["__proto__ escaped, further down", () => chat('{"a":[{"\\u005f_proto__":1}]}'), "__proto__"],
  ])("answers %s with 400", async (_what, bytes, param) => {
    expectRefusal(proxy, await ask(bytes()), "invalid_json", param);
  });

  it.each<[string, unknown, string]>([
    ["model", undefined, "model"],
    ["model", 5, "model"],
    ["model", "", "model"],
    ["model", "m".repeat(3000), "model"],
    ["model", ["deepseek-flash"], "model"],
    ["messages", undefined, "messages"],
    ["messages", [], "messages"],
    ["messages", "hi", "messages"],
    ["messages", { 0: { role: "user" }, length: 1 }, "messages"],
    ["messages", ["hi"], "messages.0"],
    ["messages", [{ role: "user" }, null], "messages.1"],
    ["messages", [{ content: "hi" }], "messages.0.role"],
    ["messages", [{ role: 1 }], "messages.0.role"],
    ["stream", "yes", "stream"],
    ["stream", 1, "stream"],
    ["stream_options", "usage", "stream_options"],
    ["max_tokens", 1e12, "max_tokens"],
    ["max_tokens", "NaN", "max_tokens"],
    ["max_tokens", "100", "max_tokens"],
    ["max_tokens", -1, "max_tokens"],
    ["max_tokens", 0, "max_tokens"],
    ["max_tokens", 1.5, "max_tokens"],
    ["max_completion_tokens", true, "max_completion_tokens"],
    ["n", 129, "n"],
  ])("answers %s = %.40j with 400 and names it", async (field, value, param) => {
    const answer = await ask(chat(JSON.stringify({ ...good, [field]: value })));
    const { message } = expectRefusal(proxy, answer, "invalid_request", param);
    expect(message).toMatch(new RegExp(`^${param} must be `));
  });

  it("takes a number that overflows for none", async () => {
    const body = '{"model":"a","messages":[{"role":"user"}],"max_tokens":1e999}';
    expectRefusal(proxy, await ask(chat(body)), "invalid_request", "max_tokens");
  });

  it("answers a model that nobody serves with 404, before anything is reserved", async () => {
    // The provider of this test serves all; the name is only too odd to be looked up in a plain object.
    const odd = await startProxy();
    const body = JSON.stringify({ ...good, model: "__proto__" });
    const answer = await sendRaw(
      odd.url,
      rawRequest("POST /chat/completions", [`Authorization: Bearer ${await odd.login()}`, json], body),
    ).answer();
    expectRefusal(odd, answer, "model_not_found", "model");
    await odd.dispose();
  });

  describe("one byte over the limit", () => {
    const tooLarge = " ".repeat(limit + 1);

    it("gets 413 by its Content-Length, before it has been sent", async () => {
      const head = rawRequest("POST /chat/completions", [auth, json, `Content-Length: ${limit + 1}`]);
      expectRefusal(proxy, await ask(head), "body_too_large");
    });

    it("gets 413 in chunks", async () => {
      const head = rawRequest("POST /chat/completions", [auth, json, "Transfer-Encoding: chunked"]);
      const chunk = `${(limit + 1).toString(16)}\r\n${tooLarge}\r\n0\r\n\r\n`;
      expectRefusal(proxy, await ask(head + chunk), "body_too_large");
    });

    it("gets its 413 across even if 10 MB follow, and the connection may be used again", async () => {
      const size = 10 << 20;
      const head = rawRequest("POST /chat/completions", [auth, json, `Content-Length: ${size}`]);
      const connection = sendRaw(proxy.url, head);
      connection.socket.write(Buffer.alloc(size, " "));
      expectRefusal(proxy, await connection.answer(), "body_too_large");
      if (connection.socket.writableNeedDrain) await once(connection.socket, "drain");
      connection.socket.write(rawRequest("GET /livez"));
      expect((await connection.answer()).status).toBe(200);
      connection.socket.destroy();
    });

    it("is not reached by a body at the limit", async () => {
      const body = `{${" ".repeat(limit - 2)}}`;
      expectRefusal(proxy, await ask(chat(body)), "invalid_request", "model");
    });
  });

  it("refuses a login of the wrong shape with 400, and quotes nothing of it", async () => {
    const secret = "a-password-in-the-wrong-place";
    for (const body of [
      "{}",
      `{"username":{"a":"${secret}"},"password":"x"}`,
      `{"username":"alice","password":["${secret}"]}`,
    ]) {
      const answer = await ask(rawRequest("POST /auth/login", [json], body));
      const param = body === "{}" ? "username" : body.includes('{"a"') ? "username" : "password";
      expectRefusal(proxy, answer, "invalid_request", param);
      expect(answer.body).not.toContain(secret);
    }
    expect(proxy.logLines.join("")).not.toContain(secret);
  });
});

describe("a client's headers", () => {
  it("never reach the provider, whatever its Connection header names", async () => {
    const upstream = await startScriptedUpstream();
    const proxy = await startProxy({ upstreamUrl: upstream.url });
    const token = await proxy.login();
    const headers = [
      `Authorization: Bearer ${token}`,
      json,
      "Connection: authorization, x-foo, content-type",
      "X-Foo: bar",
      "TE: trailers",
      "Proxy-Authorization: Basic Zm9v",
    ];
    const connection = sendRaw(proxy.url, rawRequest("POST /v1/chat/completions", headers, JSON.stringify(good)));
    const call = await upstream.next();
    expect(call.headers.authorization).toMatch(/^Bearer sk-upstream-sentinel/);
    expect(call.rawHeaders.filter((name) => name.toLowerCase() === "authorization")).toHaveLength(1);
    expect(call.headers["content-type"]).toBe("application/json");
    for (const name of ["x-foo", "te", "proxy-authorization"]) expect(call.headers).not.toHaveProperty(name);
    expect(call.rawHeaders.join()).not.toContain(token);
    await call.delta("hello");
    await call.finish();
    expect((await connection.answer()).status).toBe(200);
    expect(await usedRequests(proxy, token)).toBe(1);
    await proxy.dispose();
    await upstream.close();
  });
});
