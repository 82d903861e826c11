import type { FastifyRequest } from "fastify";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ifMatchOf } from "../../src/http/admin/admin-request.ts";
import { createProvider } from "../../src/providers/create-provider.ts";
import { apiNames } from "../../src/providers/apis.ts";
import { upstreamTimeouts } from "../../src/providers/open-providers.ts";
import { parseConfig } from "../../src/config/load.ts";
import { eventually } from "../support/eventually.ts";
import { rawRequest, sendRaw } from "../support/raw-http.ts";
import { answerOf, expectRefusal } from "../support/refusals.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";
import { alicePassword, bearer, post, startProxy, userFile, type RunningProxy } from "../support/start-proxy.ts";

const limit = 2 << 20;
const good = { model: "deepseek-flash", messages: [{ role: "user", content: "hi" }], stream: true };

let upstream: ScriptedUpstream;
let proxy: RunningProxy;
let token: string;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  proxy = await startProxy({
    upstreamUrl: upstream.url,
    server: `body_limit_bytes = ${limit}\nrequest_seconds = 1\n`,
    users: {
      alice: userFile("alice", alicePassword, "max_parallel = 9\n"),
      bob: userFile("bob", alicePassword, "max_parallel = 9\n"),
    },
  });
  token = await proxy.login();
});

afterAll(async () => {
  await proxy.dispose();
  await upstream.close();
});

describe("H11: an upload", () => {
  const head = (length: number): string =>
    rawRequest("POST /v1/chat/completions", [
      `Authorization: Bearer ${token}`,
      "Content-Type: application/json",
      `Content-Length: ${length}`,
    ]);

  it("may take longer than a request otherwise, as long as it advances", async () => {
    const body = JSON.stringify({ ...good, padding: "x".repeat(100_000) });
    const connection = sendRaw(proxy.url, head(body.length));
    let sent = 0;
    // A hundredth of it at a time, for longer than request_seconds and the span after it.
    const timer = setInterval(() => {
      connection.socket.write(body.slice(sent, (sent += 1_001)));
      if (sent >= body.length) clearInterval(timer);
    }, 25);
    const call = await upstream.next(20_000);
    expect(call.body).toMatchObject(good);
    await call.finish();
    await eventually(() => {
      expect(connection.received()).toMatch(/^HTTP\/1.1 200 /);
    });
    connection.socket.destroy();
  });

  it("that stops on its way gets 408", async () => {
    const connection = sendRaw(proxy.url, head(100_000) + " ".repeat(50_000));
    expectRefusal(proxy, await connection.answer(), "request_timeout");
    await connection.closed;
  });

  it("that was refused is not read for ever", async () => {
    const connection = sendRaw(proxy.url, head(limit + 1));
    expectRefusal(proxy, await connection.answer(), "body_too_large");
    const timer = setInterval(() => connection.socket.write(" "), 50);
    await connection.closed;
    clearInterval(timer);
    expect(connection.received().match(/HTTP\/1.1/g)).toHaveLength(1);
  });
});

describe("H11: large bodies", () => {
  it("of one user have a bound together, are forgotten with their requests, and are nobody else's business", async () => {
    const large = { ...good, padding: "x".repeat(limit - 1_000) };
    const ask = (credential: string) => post(`${proxy.url}/v1/chat/completions`, large, bearer(credential));
    const four = [ask(token), ask(token), ask(token), ask(token)];
    const calls = [await upstream.next(), await upstream.next(), await upstream.next(), await upstream.next()];
    const refused = await answerOf(await ask(token));
    expectRefusal(proxy, refused, "concurrency_exceeded");

    const other = ask(await proxy.login("bob"));
    await (await upstream.next()).finish();
    expect((await other).status).toBe(200);

    for (const call of calls) await call.finish();
    for (const answer of four) await (await answer).text();
    const again = ask(token);
    await (await upstream.next()).finish();
    expect((await again).status).toBe(200);
  });
});

describe("H11: a change on a condition", () => {
  it.each<[Record<string, string>, boolean | undefined]>([
    [{}, undefined],
    [{ "if-match": '"a"' }, true],
    [{ "if-match": '"b", "a"' }, true],
    [{ "if-match": "*" }, true],
    [{ "if-match": '"b"' }, false],
    [{ "if-match": 'W/"a"' }, false],
    [{ "if-none-match": '"a"' }, false],
    [{ "if-none-match": 'W/"a"' }, false],
    [{ "if-none-match": '"b", "a"' }, false],
    [{ "if-none-match": "*" }, false],
    [{ "if-none-match": '"b"' }, true],
    [{ "if-match": '"a"', "if-none-match": '"a"' }, false],
    [{ "if-match": '"a"', "if-none-match": '"b"' }, true],
  ])("heeds %j", (headers, expected) => {
    expect(ifMatchOf({ headers } as unknown as FastifyRequest)?.('"a"')).toBe(expected);
  });
});

describe("H11: a base URL with a query", () => {
  it.each(["deepseek", "zhipu", "openai", "simulator"] as const)("keeps it on every path: %s", async (kind) => {
    const provider = createProvider({
      name: "p",
      keyIndex: 0,
      kind,
      baseUrl: "http://127.0.0.1:1/root/?api-version=2026-01&x=%20y",
      apiKey: "",
      models: ["*"],
      modelMap: {},
      priority: 0,
      weight: 1,
      timeouts: upstreamTimeouts(parseConfig("", "x").timeouts),
      breaker: { failures: 5, windowMs: 1, openMs: 1 },
    });
    const offered = apiNames.filter((api) => provider.offers(api));
    expect(offered.length).toBeGreaterThan(1);
    for (const api of offered)
      expect(provider.endpoint(api, "m").path).toMatch(/^\/root\/[a-z/0-9]+\?api-version=2026-01&x=%20y$/);
    expect([provider.basePath, provider.query]).toEqual(["/root", "?api-version=2026-01&x=%20y"]);
    await provider.dispatcher.close();
  });

  it("keeps it in what is sent", async () => {
    const own = await startScriptedUpstream();
    const queried = await startProxy({ upstreamUrl: `${own.url}/v1?api-version=1`, kind: "openai" });
    const answering = post(`${queried.url}/v1/chat/completions`, good, bearer(await queried.login()));
    const call = await own.next();
    expect(call.url).toBe("/v1/chat/completions?api-version=1");
    await call.finish();
    await (await answering).text();
    await queried.dispose();
    await own.close();
  });
});
