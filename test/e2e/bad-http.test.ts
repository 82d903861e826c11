import { connect, type Socket } from "node:net";
import { once } from "node:events";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { ErrorCode } from "../../src/errors.ts";
import { eventually } from "../support/eventually.ts";
import { rawRequest, sendRaw, type RawConnection } from "../support/raw-http.ts";
import { expectNoTraces, expectRefusal } from "../support/refusals.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";
import { startProxy, type RunningProxy } from "../support/start-proxy.ts";

const json = "Content-Type: application/json";

describe("HTTP as nobody should send it", () => {
  let upstream: ScriptedUpstream;
  let proxy: RunningProxy;
  let token: string;
  let auth: string;

  beforeAll(async () => {
    upstream = await startScriptedUpstream();
    proxy = await startProxy({ upstreamUrl: upstream.url, server: "request_seconds = 1\n" });
    token = await proxy.login();
    auth = `Authorization: Bearer ${token}`;
  });

  afterEach(() => expectNoTraces(proxy, upstream, token));

  afterAll(async () => {
    await proxy.dispose();
    await upstream.close();
  });

  const send = (bytes: string | Buffer): RawConnection => sendRaw(proxy.url, bytes);
  const chat = (headers: readonly string[], body: string): string =>
    rawRequest("POST /chat/completions", [auth, json, ...headers]) + body;
  const head = (headers: string): string => `GET /livez HTTP/1.1\r\nHost: proxy\r\n${headers}\r\n\r\n`;

  async function expectClosedBy(bytes: string, code: ErrorCode): Promise<void> {
    const connection = send(bytes);
    const answer = await connection.answer();
    expectRefusal(proxy, answer, code);
    expect(answer.headers.connection).toBe("close");
    connection.socket.end();
    await connection.closed;
  }

  it.each<[string, (() => string) | string]>([
    [
      "Content-Length beside Transfer-Encoding",
      () => chat(["Content-Length: 5", "Transfer-Encoding: chunked"], "0\r\n\r\n"),
    ],
    ["Content-Length twice", () => chat(["Content-Length: 2", "Content-Length: 2"], "{}")],
    ["two lengths in one header", () => chat(["Content-Length: 2, 3"], "{}")],
    ["a negative Content-Length", () => chat(["Content-Length: -2"], "{}")],
    ["chunked twice", () => chat(["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], "0\r\n\r\n")],
    ["a coding that only looks like chunked", () => chat(["Transfer-Encoding: xchunked"], "0\r\n\r\n")],
    ["a chunk size that is no number", () => chat(["Transfer-Encoding: chunked"], "zz\r\n{}\r\n0\r\n\r\n")],
    ["bare LF after the request line", "GET /livez HTTP/1.1\nHost: proxy\r\n\r\n"],
    ["bare LF after a header", "GET /livez HTTP/1.1\r\nHost: proxy\n\r\n"],
    ["bare CR in a header", head("X-A: a\rX-B: b")],
    ["a space before a header's colon", head("X-Foo : bar")],
    ["a folded header", head("X-Foo: a\r\n b")],
    ["NUL in a header", head("X-Foo: a\0b")],
    ["an unknown method", "FROB /livez HTTP/1.1\r\nHost: proxy\r\n\r\n"],
    ["an unknown version", "GET /livez HTTP/9.9\r\nHost: proxy\r\n\r\n"],
    ["HTTP/2 without a word before", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    [
      "bytes that are not ASCII in the path",
      Buffer.from("GET /livéz HTTP/1.1\r\nHost: proxy\r\n\r\n").toString("latin1"),
    ],
    ["plain nonsense", "nonsense\r\n\r\n"],
    ["a tunnel", "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"],
    ["a tunnel with bytes for its other end", "CONNECT proxy:80 HTTP/1.1\r\nHost: proxy:80\r\n\r\nGET / HTTP/1.1"],
    ["HTTP/2.0 in the form of HTTP/1.1", "GET /livez HTTP/2.0\r\nHost: proxy\r\n\r\n"],
    ["HTTP/0.9 with headers", "GET /livez HTTP/0.9\r\nHost: proxy\r\n\r\n"],
    [
      "a transfer coding that it doesn't know",
      () => chat(["Transfer-Encoding: gzip, chunked"], "2\r\n{}\r\n0\r\n\r\n"),
    ],
    [
      "a transfer coding in a header of its own",
      () => chat(["Transfer-Encoding: identity", "Transfer-Encoding: chunked"], "2\r\n{}\r\n0\r\n\r\n"),
    ],
    [
      "chunks by HTTP/1.0, which has none",
      () =>
        chat(["Connection: keep-alive", "Transfer-Encoding: chunked"], "2\r\n{}\r\n0\r\n\r\n").replace(
          "HTTP/1.1",
          "HTTP/1.0",
        ),
    ],
    ["no Host header", "GET /livez HTTP/1.1\r\n\r\n"],
    ["two Host headers", head("Host: other")],
    ["two hosts in one header", "GET /livez HTTP/1.1\r\nHost: a, b\r\n\r\n"],
    ["a path in the Host header", "GET /livez HTTP/1.1\r\nHost: a/b\r\n\r\n"],
    ["a user in the Host header", "GET /livez HTTP/1.1\r\nHost: a@b\r\n\r\n"],
    ["a port that is no number", "GET /livez HTTP/1.1\r\nHost: a:b\r\n\r\n"],
  ])("answers %s with 400 and closes", async (_what, bytes) => {
    await expectClosedBy(typeof bytes === "string" ? bytes : bytes(), "bad_http");
  });

  it("answers 20 KB of headers with 431 and closes", async () => {
    await expectClosedBy(head(`X-Foo: ${"a".repeat(20_000)}`), "headers_too_large");
  });

  it("gets its 431 across to a client that goes on sending before it reads", async () => {
    const lines = proxy.logLines.length;
    const connection = send("");
    connection.socket.pause();
    connection.socket.write(`GET /livez HTTP/1.1\r\nX-Foo: ${"a".repeat(20_000)}`);
    await eventually(() => {
      expect(proxy.logLines).toHaveLength(lines + 1);
    });
    for (let i = 0; i < 3; i++) {
      const error = await new Promise((resolve) => connection.socket.write("a".repeat(64 << 10), resolve));
      expect(error ?? null).toBeNull();
    }
    connection.socket.resume();
    expectRefusal(proxy, await connection.answer(), "headers_too_large");
    connection.socket.end();
    await connection.closed;
  });

  it.each<[string, ErrorCode, () => string]>([
    ["an unknown path", "not_found", () => rawRequest("POST /nowhere", ["Transfer-Encoding: chunked"])],
    ["no token", "missing_token", () => rawRequest("POST /chat/completions", [json, "Transfer-Encoding: chunked"])],
    ["an unknown coding", "bad_http", () => chat(["Transfer-Encoding: gzip, chunked"], "")],
  ])("answers once where the body behind %s is malformed as well", async (_what, code, request) => {
    const lines = proxy.logLines.length;
    const connection = send(`${request()}1\r\n{\r\nzz\r\n`);
    expectRefusal(proxy, await connection.answer(), code);
    connection.socket.end();
    await connection.closed;
    expect(connection.received().match(/^HTTP\/1\.1 /gm)).toHaveLength(1);
    expect(proxy.logLines).toHaveLength(lines + 1);
  });

  it.each([
    "",
    "proxy",
    "proxy:8080",
    "proxy:",
    "my_proxy.example.",
    "127.0.0.1:80",
    "[::1]",
    "[::1]:8080",
    "[fe80::1%25eth0]",
  ])("takes %j for a host", async (host) => {
    const connection = send(`GET /livez HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
    expect((await connection.answer()).status).toBe(200);
    connection.socket.destroy();
  });

  it("stays up when the client of a tunnel resets its connection", async () => {
    const connection = send("CONNECT proxy:80 HTTP/1.1\r\nHost: proxy:80\r\n\r\n");
    await once(connection.socket, "connect");
    connection.socket.resetAndDestroy();
    const next = send(head("Connection: close"));
    expect((await next.answer()).status).toBe(200);
  });

  it("takes no notice of an expectation that it doesn't know", async () => {
    const connection = send(head("Expect: miracles"));
    expect((await connection.answer()).status).toBe(200);
    connection.socket.destroy();
  });

  it.each([
    "GET /nowhere",
    "GET /livez%00",
    "GET /%zz",
    "GET /%c0%ae%c0%ae/users/alice.toml",
    "GET /../../users/alice.toml",
    "GET /..%2fusers%2falice.toml",
    `GET /${"a".repeat(8000)}`,
  ])("answers %.60s with 404 in the contract's shape", async (line) => {
    const connection = send(rawRequest(line));
    expectRefusal(proxy, await connection.answer(), "not_found");
    connection.socket.destroy();
  });

  it("answers HEAD on a chat with 405 and no body", async () => {
    const connection = send(rawRequest("HEAD /chat/completions", [auth]));
    await eventually(() => {
      expect(connection.received()).toMatch(/^HTTP\/1.1 405 [^]*\r\n\r\n$/);
    });
    connection.socket.destroy();
  });

  it.each([
    ["a length that never comes", () => chat(["Content-Length: 200"], "{")],
    ["chunks that never end", () => chat(["Transfer-Encoding: chunked"], "1\r\n{\r\n")],
    ["headers that never end", () => "GET /livez HTTP/1.1\r\nHost: proxy\r\nX-Foo: "],
  ])("answers 408 to %s, however steadily bytes trickle in", async (what, start) => {
    const connection = send(start());
    const trickle = what.startsWith("chunks") ? "1\r\n \r\n" : " ";
    const timer = setInterval(() => connection.socket.write(trickle), 100);
    const answer = await connection.answer().finally(() => {
      clearInterval(timer);
    });
    expectRefusal(proxy, answer, "request_timeout");
    connection.socket.end();
    await connection.closed;
  });

  it.each([
    ["a GET", "GET /livez", 200],
    ["a page of the panel", "GET /panel/", 200],
    ["an unknown address", "POST /nowhere", 404],
    ["an unknown method", "PUT /auth/login", 405],
    ["a preflight", "OPTIONS /v1/chat/completions", 405],
    ["an address that can't be decoded", "POST /%ff", 404],
  ])("closes the connection of %s whose body never ends, once it has answered", async (_what, start, status) => {
    const connection = send(rawRequest(start, ["Content-Length: 1000000"]) + "{");
    const timer = setInterval(() => connection.socket.write(" "), 100);
    expect((await connection.answer()).status).toBe(status);
    await connection.closed.finally(() => {
      clearInterval(timer);
    });
  });

  it("closes a connection that never says anything, without a word", async () => {
    const lines = proxy.logLines.length;
    const connection = send("");
    await connection.closed;
    expect(connection.received()).toBe("");
    expect(proxy.logLines).toHaveLength(lines);
  });

  it("tells of nothing when a client leaves in the middle of its body", async () => {
    const lines = proxy.logLines.length;
    const connection = send(chat(["Content-Length: 200"], "{"));
    await once(connection.socket, "connect");
    connection.socket.end();
    await connection.closed;
    expect(proxy.logLines).toHaveLength(lines);
  });

  it.each([
    ["short and well formed", "abc-DEF_1.2", true],
    ["64 characters", "a".repeat(64), true],
    ["65 characters", "a".repeat(65), false],
    ["too short", "abc", false],
    ["with spaces", "abcd efgh", false],
    ["with a line of the log in it", 'x","level":"error","a":"b', false],
    ["not ASCII", "caf\u00e9caf\u00e9", false],
  ])("takes the client's X-Request-ID only if it is well formed: %s", async (_what, id, taken) => {
    const connection = send(rawRequest("GET /livez", [`X-Request-ID: ${id}`]));
    const given = (await connection.answer()).headers["x-request-id"];
    if (taken) expect(given).toBe(id);
    else expect(given).toMatch(/^[0-9a-f-]{36}$/);
    connection.socket.destroy();
  });

  it("takes none of two X-Request-IDs", async () => {
    const connection = send(rawRequest("GET /livez", ["X-Request-ID: first-one", "X-Request-ID: second-one"]));
    expect((await connection.answer()).headers["x-request-id"]).toMatch(/^[0-9a-f-]{36}$/);
    connection.socket.destroy();
  });

  it("believes no X-Forwarded-For of a peer that is not a trusted proxy", async () => {
    const connection = send(rawRequest("GET /nowhere", ["X-Forwarded-For: 203.0.113.7", "Forwarded: for=203.0.113.7"]));
    const { trace_id } = expectRefusal(proxy, await connection.answer(), "not_found");
    const line = proxy.logLines.find((one) => one.includes(String(trace_id)));
    expect(JSON.parse(line ?? "")).toMatchObject({ ip: "127.0.0.1" });
    connection.socket.destroy();
  });
});

describe("thousands of connections that say nothing", () => {
  it("don't keep /healthz from answering, and don't stay", async () => {
    const proxy = await startProxy({ server: "request_seconds = 2\n" });
    const { port } = new URL(proxy.url);
    const idle: Socket[] = [];
    // Both ends are in this process: 4,000 open files, where 20,000 are commonly allowed. In batches, because the
    // kernel keeps no more than some hundred connections for a server that has not accepted them yet.
    while (idle.length < 2000) {
      const batch = Array.from({ length: 200 }, () => connect(Number(port), "127.0.0.1").on("error", () => undefined));
      await Promise.all(batch.map((socket) => once(socket, "connect")));
      idle.push(...batch);
    }
    const answer = await fetch(`${proxy.url}/healthz`);
    expect(await answer.json()).toMatchObject({ checks: { upstream: { ok: true } } });
    for (const socket of idle) socket.resume();
    await eventually(() => {
      expect(idle.filter(({ closed }) => !closed)).toHaveLength(0);
    });
    await proxy.dispose();
  });
});
