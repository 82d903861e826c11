import { createHash, createHmac, randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ask, jsonOf, logIn } from "../support/accounts.ts";
import { alicePassword, bearer, post, startProxy, type RunningProxy } from "../support/start-proxy.ts";

interface Request {
  readonly method: string;
  readonly path: string;
  readonly body: string;
  readonly timestamp: string;
  readonly nonce: string;
}

function signatureOf(secret: string, { method, path, timestamp, nonce, body }: Request): string {
  const bodyHash = createHash("sha256").update(body).digest("hex");
  return createHmac("sha256", secret).update([method, path, timestamp, nonce, bodyHash].join("\n")).digest("hex");
}

describe("signed requests", () => {
  let proxy: RunningProxy;
  let token: string;
  let key: string;
  let secret: string;

  beforeAll(async () => {
    proxy = await startProxy();
    ({ token } = await logIn(proxy, "alice", alicePassword));
    const terms = { name: "signed", require_signature: true };
    const made = await jsonOf<{ key: string; signing_secret: string }>(
      post(`${proxy.url}/auth/keys`, terms, bearer(token)),
    );
    ({ key, signing_secret: secret } = made.body);
  });

  afterAll(() => proxy.dispose());

  const chat = JSON.stringify({ model: "sim-fast", stream: false, messages: [{ role: "user", content: "你好" }] });
  const request = (changes: Partial<Request> = {}): Request => ({
    method: "POST",
    path: "/v1/chat/completions",
    body: chat,
    timestamp: String(Math.floor(Date.now() / 1000)),
    nonce: randomBytes(16).toString("hex"),
    ...changes,
  });

  /** Sends a request with the signature of it, or of another one. */
  function send(sent: Request, signed: Request = sent, by = secret) {
    const { method, path, body, timestamp, nonce } = sent;
    return jsonOf(
      fetch(`${proxy.url}${path}`, {
        method,
        headers: {
          ...bearer(key),
          "x-signature-timestamp": timestamp,
          "x-signature-nonce": nonce,
          "x-signature": signatureOf(by, signed),
          ...(body === "" ? {} : { "content-type": "application/json" }),
        },
        ...(body === "" ? {} : { body }),
      }),
    );
  }

  const refused = { status: 401, body: { error: { code: "signature_invalid" } } };

  it("are served, with and without a body", async () => {
    expect((await send(request())).status).toBe(200);
    expect((await send(request({ method: "GET", path: "/auth/quota?x=%20y", body: "" }))).status).toBe(200);
  });

  it("are served once", async () => {
    const once = request();
    expect((await send(once)).status).toBe(200);
    expect(await send(once)).toMatchObject(refused);
  });

  it("are refused where anything was changed, left out, or signed by another secret", async () => {
    const honest = request();
    for (const change of [
      { body: chat.replace("好", "们") },
      { path: "/chat/completions" },
      { nonce: "0".repeat(32) },
    ]) {
      expect(await send({ ...honest, ...change }, honest)).toMatchObject(refused);
    }
    expect(await send(honest, honest, "dss_other")).toMatchObject(refused);
    const early = request({ timestamp: String(Math.floor(Date.now() / 1000) - 400) });
    expect(await send(early)).toMatchObject(refused);
    expect(await ask(proxy, "GET /auth/quota", key)).toMatchObject(refused);
    expect(await ask(proxy, "GET /auth/quota", "made-up", { "api-key": key })).toMatchObject(refused);
  });

  it("that are refused cost nothing and reach no provider", async () => {
    const used = async () => {
      const { body } = await ask<{ limits: { used: number }[] }>(proxy, "GET /auth/quota", token);
      return body.limits[0]?.used;
    };
    const before = await used();
    const honest = request();
    await send({ ...honest, body: chat.replace("好", "们") }, honest);
    expect(await used()).toBe(before);
  });

  it("are not asked of access tokens and other keys", async () => {
    expect((await jsonOf(post(`${proxy.url}/v1/chat/completions`, JSON.parse(chat), bearer(token)))).status).toBe(200);
  });

  it("never show their secret again", async () => {
    const { body } = await ask(proxy, "GET /auth/keys", token);
    expect(JSON.stringify(body)).not.toContain(secret.slice(4, 12));
    expect(proxy.logLines.join("")).not.toContain(secret.slice(4, 12));
    const file = await readFile(`${proxy.folder}/users/alice.keys.toml`, "utf8");
    expect(file).not.toContain(secret.slice(4, 12));
  });
});

it("the test vector of docs/signatures.md is right", async () => {
  const text = await readFile(new URL("../../docs/signatures.md", import.meta.url), "utf8");
  const value = (name: string): string => new RegExp(`^ {4}${name}: +(.+)$`, "m").exec(text)?.[1] ?? "";
  const [body, method, path] = [value("body"), value("method"), value("path")];
  expect(createHash("sha256").update(body).digest("hex")).toBe(value("body sha256"));
  const vector = { method, path, body, timestamp: value("timestamp"), nonce: value("nonce") };
  expect(signatureOf(value("secret"), vector)).toBe(value("signature"));
  expect(value("signature")).toMatch(/^[0-9a-f]{64}$/);
});
