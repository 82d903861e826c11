import type { IncomingMessage } from "node:http";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.ts";
import { usedRequests } from "../support/quota.ts";
import { rawRequest, sendRaw } from "../support/raw-http.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";
import { startProxy, type RunningProxy } from "../support/start-proxy.ts";

describe("a client that behaves badly while it is answered", () => {
  let upstream: ScriptedUpstream;
  let proxy: RunningProxy;
  let token: string;

  beforeEach(async () => {
    upstream = await startScriptedUpstream();
    proxy = await startProxy({ upstreamUrl: upstream.url, config: "[timeouts]\nstalled_reader_seconds = 0.3\n" });
    token = await proxy.login();
  });

  afterEach(async () => {
    await proxy.dispose();
    await upstream.close();
  });

  function request(stream: boolean): string {
    const body = JSON.stringify({ model: "deepseek-flash", stream, messages: [{ role: "user", content: "hi" }] });
    const headers = [`Authorization: Bearer ${token}`, "Content-Type: application/json"];
    return rawRequest("POST /chat/completions", headers, body);
  }

  /** Connections that the proxy's server holds, this question's own aside. */
  function connections(): Promise<number> {
    return new Promise((resolve, reject) => {
      proxy.server.app.server.getConnections((error, count) => {
        if (error === null) resolve(count);
        else reject(error);
      });
    });
  }

  it.each<[string, () => string]>([
    ["a chat", () => request(true)],
    ["a chat as one JSON", () => request(false)],
    ["an unknown path", () => rawRequest("GET /nowhere")],
    ["its models", () => rawRequest("GET /v1/models", [`Authorization: Bearer ${token}`])],
    [
      "a login",
      () =>
        rawRequest("POST /auth/login", ["Content-Type: application/json"], '{"username":"eve","password":"wrong one"}'),
    ],
  ])("causes no error where its connection is gone before anybody has looked at it: %s", async (_what, bytes) => {
    const lines = proxy.logLines.length;
    proxy.server.app.server.prependOnceListener("request", ({ socket }: IncomingMessage) => {
      socket.destroy();
    });
    const connection = sendRaw(proxy.url, bytes());
    await connection.closed;
    const next = sendRaw(proxy.url, rawRequest("GET /nowhere", ["Connection: close", "X-Request-ID: the-next-one"]));
    expect((await next.answer()).status).toBe(404);
    await eventually(() => {
      expect([proxy.services.gateway.running(), proxy.services.concurrency.inFlight()]).toEqual([0, 0]);
      expect(proxy.logLines.join("")).toContain("the-next-one");
    });
    const caused = proxy.logLines.slice(lines).filter((line) => /"level":"(error|fatal)"/.test(line));
    expect(caused).toEqual([]);
    for (const line of proxy.logLines.slice(lines)) expect(JSON.parse(line)).toMatchObject({ ip: "127.0.0.1" });
  });

  it("is cut off for nonsense sent behind a request, without a second answer in the middle of the first", async () => {
    const connection = sendRaw(proxy.url, request(true));
    const call = await upstream.next();
    await call.delta("one");
    await eventually(() => {
      expect(connection.received()).toContain("one");
    });
    connection.socket.write("nonsense\r\n\r\n");
    await connection.closed;
    await call.closed;
    expect(call.left).toBe(true);
    expect(connection.received().match(/HTTP\/1.1/g)).toHaveLength(1);
    expect(connection.received()).toMatch(/^HTTP\/1.1 200 /);
    expect(await usedRequests(proxy, token)).toBe(1);
    expect(proxy.services.concurrency.inFlight()).toBe(0);
  });

  it("gets its 400, and no chat, for nonsense behind a request that nobody has answered yet", async () => {
    const connection = sendRaw(proxy.url, request(true));
    const call = await upstream.next();
    connection.socket.write("nonsense\r\n\r\n");
    expect((await connection.answer()).status).toBe(400);
    await connection.closed;
    await call.closed;
    expect(call.left).toBe(true);
    expect(await usedRequests(proxy, token)).toBe(0);
    expect(proxy.services.concurrency.inFlight()).toBe(0);
  });

  it("gets pipelined answers in the order of its requests", async () => {
    const connection = sendRaw(proxy.url, request(false) + rawRequest("GET /livez"));
    const call = await upstream.next();
    await call.delta("hello");
    await call.finish();
    expect((await connection.answer()).body).toContain("chat.completion");
    expect((await connection.answer()).body).toBe('{"status":"ok"}');
    connection.socket.destroy();
  });

  it("may wait longer than that for an answer, also behind another one", async () => {
    const accepted = once(proxy.server.app.server, "connection") as Promise<[Socket]>;
    const connection = sendRaw(proxy.url, rawRequest("GET /livez") + request(false));
    const [served] = await accepted;
    const call = await upstream.next();
    expect((await connection.answer()).body).toBe('{"status":"ok"}');
    expect(served.timeout).toBe(0);
    await call.delta("hello");
    await call.finish();
    expect((await connection.answer()).body).toContain("chat.completion");
    connection.socket.destroy();
  });

  it.each(["/openapi.json", "/docs", "/panel/", "/metrics", "/livez", "/nowhere"])(
    "doesn't keep its connection by reading none of many answers at once: %s",
    async (path) => {
      // More than the kernel buffers between the two sides.
      const size = (await (await fetch(`${proxy.url}${path}`)).text()).length + 200;
      const many = rawRequest(`GET ${path}`).repeat(Math.ceil((16 << 20) / size));
      const accepted = once(proxy.server.app.server, "connection") as Promise<[Socket]>;
      const { port, hostname } = new URL(proxy.url);
      const socket = connect(Number(port), hostname).on("error", () => undefined);
      socket.pause();
      socket.write(many);
      const [served] = await accepted;
      await eventually(() => {
        expect(served.writableLength).toBeGreaterThan(0);
      });
      await eventually(() => {
        expect(served.destroyed).toBe(true);
      });
      socket.destroy();
    },
  );

  it("doesn't keep its connection by leaving a finished answer unread", async () => {
    await eventually(async () => {
      expect(await connections()).toBeLessThanOrEqual(1);
    });
    const before = await connections();
    const { port, hostname } = new URL(proxy.url);
    const socket = connect(Number(port), hostname).on("error", () => undefined);
    socket.pause();
    socket.write(request(false));
    const call = await upstream.next();
    // More than the kernel buffers between the two sides.
    for (let i = 0; i < 16; i++) await call.delta("x".repeat(1 << 20));
    await call.finish();
    await eventually(() => {
      expect(proxy.services.gateway.running()).toBe(0);
    });
    await eventually(async () => {
      expect(await connections()).toBeLessThanOrEqual(before);
    });
    expect(await usedRequests(proxy, token)).toBe(1);
    socket.destroy();
  });
});
