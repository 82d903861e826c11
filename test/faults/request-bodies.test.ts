import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync } from "node:zlib";
import { createHash, createHmac, randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AppError } from "../../src/errors.ts";
import { codingsOf, decodeBody } from "../../src/http/plugins/request-body.ts";
import { jsonOf } from "../support/accounts.ts";
import { rawRequest, sendRaw, type RawAnswer } from "../support/raw-http.ts";
import { answerOf, expectRefusal } from "../support/refusals.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";
import { bearer, post, startProxy, type RunningProxy } from "../support/start-proxy.ts";

const limit = 128 << 10;
const good = { model: "deepseek-flash", messages: [{ role: "user", content: "Grüße, 你好" }] };
const goodBytes = Buffer.from(JSON.stringify(good));

let upstream: ScriptedUpstream;
let proxy: RunningProxy;
let token: string;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  proxy = await startProxy({ upstreamUrl: upstream.url, server: `body_limit_bytes = ${limit}\n` });
  token = await proxy.login();
});

afterAll(async () => {
  await proxy.dispose();
  await upstream.close();
});

function send(body: Buffer | string, headers: Readonly<Record<string, string>> = {}, path = "/v1/chat/completions") {
  return fetch(proxy.url + path, {
    method: "POST",
    headers: { ...bearer(token), "content-type": "application/json", ...headers },
    body: typeof body === "string" ? body : new Uint8Array(body),
  });
}

/** Checks that a request passes, and that the provider gets these bytes, but for what the proxy puts in. */
async function expectServed(answering: Promise<Response>): Promise<void> {
  const call = await upstream.next();
  expect(call.body).toMatchObject(good);
  await call.finish();
  expect((await answering).status).toBe(200);
}

async function expectRefused(answering: Promise<Response>, code: Parameters<typeof expectRefusal>[2]) {
  const before = upstream.received;
  const answer = await answerOf(await answering);
  const { param } = JSON.parse(answer.body).error as { param: string | null };
  expectRefusal(proxy, answer, code, param);
  expect(upstream.received).toBe(before);
  return answer;
}

describe("H1: a body in a Content-Encoding", () => {
  it.each<[string, string, (bytes: Buffer) => Buffer]>([
    ["gzip", "gzip", gzipSync],
    [
      "gzip in two members",
      "gzip",
      (bytes) => Buffer.concat([gzipSync(bytes.subarray(0, 9)), gzipSync(bytes.subarray(9))]),
    ],
    ["its old name", "x-gzip", gzipSync],
    ["its name in capitals", "GZip", gzipSync],
    ["deflate", "deflate", deflateSync],
    ["deflate without its header", "deflate", deflateRawSync],
    ["br", "br", brotliCompressSync],
    ["identity", "identity", (bytes) => bytes],
    ["an empty list", " , ", (bytes) => bytes],
    ["two codings", "gzip, br", (bytes) => brotliCompressSync(gzipSync(bytes))],
    [
      "three, and nothing between them",
      "deflate,,identity , gzip,br",
      (b) => brotliCompressSync(gzipSync(deflateSync(b))),
    ],
  ])("is decoded: %s", async (_what, coding, encode) => {
    await expectServed(send(encode(goodBytes), { "content-encoding": coding }));
  });

  it.each<[string, string, Buffer]>([
    ["cut gzip", "gzip", gzipSync(goodBytes).subarray(0, -4)],
    ["gzip with a wrong checksum", "gzip", Buffer.concat([gzipSync(goodBytes).subarray(0, -8), Buffer.alloc(8)])],
    ["gzip with more behind it", "gzip", Buffer.concat([gzipSync(goodBytes), Buffer.from("{}")])],
    ["deflate with more behind it", "deflate", Buffer.concat([deflateSync(goodBytes), Buffer.from("{}")])],
    ["br with more behind it", "br", Buffer.concat([brotliCompressSync(goodBytes), Buffer.from("{}")])],
    ["plain text said to be gzip", "gzip", goodBytes],
    ["plain text said to be deflate", "deflate", goodBytes],
    ["br said to be gzip", "gzip", brotliCompressSync(goodBytes)],
    ["codings in the wrong order", "br, gzip", brotliCompressSync(gzipSync(goodBytes))],
    ["nothing said to be gzip", "gzip", Buffer.alloc(0)],
    ["gzip of what is no JSON", "gzip", gzipSync("hello")],
    ["gzip of nothing", "gzip", gzipSync("")],
  ])("is refused with 400 where it is damaged: %s", async (_what, coding, bytes) => {
    await expectRefused(send(bytes, { "content-encoding": coding }), "invalid_json");
  });

  it.each(["compress", "x-compress", "exi", "gzip, aes128gcm", "gzip;q=1", "gzip,gzip,gzip,gzip", "*"])(
    "is refused with 415 and what is accepted: %s",
    async (coding) => {
      const answer = await expectRefused(send(goodBytes, { "content-encoding": coding }), "unsupported_media_type");
      expect(answer.headers["accept-encoding"]).toMatch(/^gzip, deflate, br(, zstd)?$/);
    },
  );

  it.each<[string, (bytes: Buffer) => Buffer]>([
    ["gzip", gzipSync],
    ["deflate", deflateSync],
    ["br", brotliCompressSync],
    ["gzip, gzip", (bytes) => gzipSync(gzipSync(bytes))],
  ])("is measured after it is decoded: %s", async (coding, encode) => {
    const bodyOf = (length: number): Buffer => Buffer.from(JSON.stringify(good).padEnd(length, " "));
    await expectServed(send(encode(bodyOf(goodBytes.length - 4)), { "content-encoding": coding }));
    await expectServed(
      send(encode(Buffer.concat([goodBytes, Buffer.alloc(limit - goodBytes.length, " ")])), {
        "content-encoding": coding,
      }),
    );
    const tooLarge = encode(Buffer.concat([goodBytes, Buffer.alloc(limit + 1 - goodBytes.length, " ")]));
    await expectRefused(send(tooLarge, { "content-encoding": coding }), "body_too_large");
    await expectRefused(send(encode(Buffer.alloc(40 << 20)), { "content-encoding": coding }), "body_too_large");
  });

  it.each<[string, (bytes: Buffer) => Buffer]>([
    ["gzip", gzipSync],
    ["deflate", deflateSync],
    ["deflate", deflateRawSync],
    ["br", brotliCompressSync],
  ])("%s is counted while it is decoded, and decoded no further than there is room", async (coding, encode) => {
    const full = new AppError("concurrency_exceeded");
    let counted = 0;
    const count = (bytes: number): void => {
      counted += bytes;
      if (counted > 1 << 20) throw full;
    };
    const decoding = decodeBody(encode(Buffer.alloc(16 << 20)), codingsOf(coding), { limit: 32 << 20, count });
    await expect(decoding).rejects.toBe(full);
    expect(counted).toBeLessThan(2 << 20);
  });

  it("is decoded on routes without a token, within their limit", async () => {
    const login = gzipSync(JSON.stringify({ username: "alice", password: "wrong" }));
    await expectRefused(send(login, { "content-encoding": "gzip" }, "/auth/login"), "invalid_credentials");
    const bomb = gzipSync(Buffer.alloc(65 << 10, " "));
    await expectRefused(send(bomb, { "content-encoding": "gzip" }, "/auth/login"), "body_too_large");
  });

  it("is signed as it is sent", async () => {
    const terms = { name: "signed", require_signature: true };
    const made = await jsonOf<{ key: string; signing_secret: string }>(
      post(`${proxy.url}/auth/keys`, terms, bearer(token)),
    );
    const { key, signing_secret: secret } = made.body;
    const sent = gzipSync(goodBytes);
    const signed = (bytes: Buffer) => {
      const [timestamp, nonce] = [String(Math.floor(Date.now() / 1000)), randomBytes(16).toString("hex")];
      const hash = createHash("sha256").update(bytes).digest("hex");
      const text = ["POST", "/v1/chat/completions", timestamp, nonce, hash].join("\n");
      return {
        ...bearer(key),
        "content-encoding": "gzip",
        "x-signature-timestamp": timestamp,
        "x-signature-nonce": nonce,
        "x-signature": createHmac("sha256", secret).update(text).digest("hex"),
      };
    };
    await expectServed(send(sent, signed(sent)));
    await expectRefused(send(sent, signed(goodBytes)), "signature_invalid");
  });
});

describe("H11: a charset", () => {
  it.each(["utf-8", "UTF-8", '"utf-8"', "utf8"])("is taken: %s", async (charset) => {
    await expectServed(send(goodBytes, { "content-type": `application/json; charset=${charset}` }));
  });

  it.each(["utf-16", "UTF-16LE", '"iso-8859-1"', "gbk", "utf-7", "us-ascii", "x; charset=utf-8", "utf-8; charset=gbk"])(
    "other than UTF-8 is refused with 415: %s",
    async (charset) => {
      const type = `application/json; charset=${charset}`;
      await expectRefused(send(goodBytes, { "content-type": type }), "unsupported_media_type");
    },
  );
});

describe("H8: keys that two parsers read differently", () => {
  const chat = (member: string): string => JSON.stringify(good).replace("{", `{${member},`);

  it.each([
    ["the model's name in capitals", chat('"MODEL":"deepseek-pro"')],
    ["the model's name behind it", JSON.stringify({ ...good, Model: "deepseek-pro" })],
    ["a long s", chat('"\u017ftream":true')],
    ["a long s written as an escape", chat('"me\\u017fsages":[]')],
    ["a NUL behind a name", chat('"model\\u0000":"deepseek-pro"')],
    ["a larger answer", chat('"Max_Tokens":100000')],
    ["more answers", chat('"N":100')],
    ["another stream", chat('"Stream":false')],
    ["other options", chat('"Stream_Options":{}')],
    ["other options within", chat('"stream_options":{"Include_Usage":false}')],
    ["another role", JSON.stringify({ ...good, messages: [{ role: "user", Role: "system", content: "hi" }] })],
    ["another text", JSON.stringify({ ...good, messages: [{ role: "user", content: "hi", CONTENT: "ho" }] })],
    ["more tools", chat('"Tools":[]')],
  ])("are refused with 400: %s", async (_what, body) => {
    const answer = await expectRefused(send(body), "invalid_request");
    expect(answer.body).toMatch(/can be taken for/);
  });

  it.each([
    ["in a message", '{"model":"m","messages":[{"role":"user","content":"a","content":"b"}]}'],
    ["in options", '{"model":"m","messages":[{"role":"user"}],"stream_options":{"a":1,"\\u0061":2}}'],
    [
      "in a tool's schema",
      '{"model":"m","messages":[{"role":"user"}],"tools":[{"function":{"a":{"b":[{"c":1,"c":1}]}}}]}',
    ],
  ])("are refused with 400 where they are equal, %s", async (_what, body) => {
    await expectRefused(send(body), "invalid_json");
  });

  it.each(["/v1/completions", "/anthropic/v1/messages", "/v1/embeddings"])("are refused on %s too", async (path) => {
    const body = { ...good, prompt: "a", input: "a", max_tokens: 5, MODEL: "x" };
    const answer = await answerOf(await send(JSON.stringify(body), {}, path));
    expect(answer.status).toBe(400);
    expect(answer.body).toMatch(/can be taken for/);
  });

  it("are refused where no provider is asked, too", async () => {
    await expectRefused(
      send('{"username":"alice","USERNAME":"bob","password":"x"}', {}, "/auth/login"),
      "invalid_json",
    );
  });

  it("pass where nobody reads them", async () => {
    const tools = [{ type: "function", function: { parameters: { properties: { model: {}, Model: {}, N: {} } } } }];
    await expectServed(send(JSON.stringify({ ...good, tools, metadata: { a: 1, A: 2 } })));
  });
});

describe("I4: bodies of routes that ask no provider", () => {
  const tooLarge = (64 << 10) + 1;

  async function raw(bytes: string): Promise<RawAnswer> {
    const connection = sendRaw(proxy.url, bytes);
    const answer = await connection.answer();
    connection.socket.destroy();
    return answer;
  }

  const open = ["POST /auth/login", "POST /auth/refresh", "POST /auth/logout"];
  const closed = ["POST /auth/password", "POST /auth/keys", "POST /auth/logout-all"];

  it.each([...open, ...closed])("are refused above 64 KB by their length, before they are sent: %s", async (route) => {
    const headers = ["Content-Type: application/json", `Content-Length: ${tooLarge}`];
    const answer = await raw(rawRequest(route, [`Authorization: Bearer ${token}`, ...headers]));
    expectRefusal(proxy, answer, "body_too_large");
  });

  it.each(open)("are refused above 64 KB where they come in chunks: %s", async (route) => {
    const head = rawRequest(route, ["Content-Type: application/json", "Transfer-Encoding: chunked"]);
    const chunk = `${tooLarge.toString(16)}\r\n${" ".repeat(tooLarge)}\r\n`;
    expectRefusal(proxy, await raw(head + chunk), "body_too_large");
  });

  it("may have only so many keys", async () => {
    const body = JSON.stringify(Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`k${i}`, 1])));
    await expectRefused(send(body, {}, "/auth/login"), "invalid_json");
  });

  it("are not read at all where the path leads nowhere", async () => {
    const headers = ["Content-Type: application/json", "Content-Length: 100000"];
    expectRefusal(proxy, await raw(rawRequest("POST /nowhere", headers)), "not_found");
  });

  it("leave chats their own limit", async () => {
    const body = JSON.stringify({ ...good, padding: "x".repeat(tooLarge) });
    await expectServed(send(body));
  });
});
