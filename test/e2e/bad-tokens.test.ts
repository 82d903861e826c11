import { readFile, rm, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { ErrorCode } from "../../src/errors.ts";
import { systemClock, type Clock } from "../../src/lib/clock.ts";
import { eventually } from "../support/eventually.ts";
import { forgeToken, readToken } from "../support/forged-token.ts";
import { usedRequests } from "../support/quota.ts";
import { rawRequest, sendRaw } from "../support/raw-http.ts";
import { answerOf, expectNoTraces, expectRefusal } from "../support/refusals.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";
import {
  alicePassword,
  bearer,
  post,
  skipOverRedis,
  startProxy,
  userFile,
  type RunningProxy,
} from "../support/start-proxy.ts";

const oldSecret = "7Kq0vWm2Xc9Lr4Tz8Yb1Nd6Pf3Hs5Gj0";
const newSecret = "Zt5Rw8Uy1Io4Pa7Sd0Fg3Hj6Kl9Xc2Vb";
const chat = { model: "deepseek-flash", messages: [{ role: "user", content: "hi" }] };

function ask(proxy: RunningProxy, authorization: string): Promise<Response> {
  return post(`${proxy.url}/chat/completions`, chat, { authorization });
}

describe("a token that was not issued here, or not like this", () => {
  let upstream: ScriptedUpstream;
  let proxy: RunningProxy;
  let token: string;

  beforeAll(async () => {
    upstream = await startScriptedUpstream();
    proxy = await startProxy({ upstreamUrl: upstream.url, env: { JWT_SECRETS: `k1:${oldSecret}` } });
    token = await proxy.login();
  });

  afterEach(() => expectNoTraces(proxy, upstream, token));

  afterAll(async () => {
    await proxy.dispose();
    await upstream.close();
  });

  /** A token like alice's own, with some fields changed. */
  function forged(
    header: Readonly<Record<string, unknown>>,
    payload: Readonly<Record<string, unknown>> = {},
    secret = oldSecret,
    hash: "sha256" | "sha384" | "sha512" = "sha256",
  ): string {
    const own = readToken(token);
    return forgeToken({ ...own.header, ...header }, { ...own.payload, ...payload }, secret, hash);
  }

  const inSeconds = (seconds: number): number => Math.floor(Date.now() / 1000) + seconds;

  it("is the only kind that is refused: one forged with the right secret passes", async () => {
    const answer = await fetch(`${proxy.url}/auth/quota`, { headers: bearer(forged({}, { jti: "another-one" })) });
    expect(answer.status).toBe(200);
  });

  it.each<[string, () => string, ErrorCode?]>([
    ["alg none", () => forged({ alg: "none" })],
    ["alg none without a signature", () => forged({ alg: "none" }).replace(/[^.]*$/, "")],
    ["HS512 with the right secret", () => forged({ alg: "HS512" }, {}, oldSecret, "sha512")],
    ["HS384 with the right secret", () => forged({ alg: "HS384" }, {}, oldSecret, "sha384")],
    ["RS256 that is really HS256", () => forged({ alg: "RS256" })],
    ["another secret", () => forged({}, {}, newSecret)],
    ["no secret", () => forged({}, {}, "")],
    ["no exp", () => forged({}, { exp: null })],
    ["a string for exp", () => forged({}, { exp: String(inSeconds(600)) })],
    ["an exp that is no whole number", () => forged({}, { exp: inSeconds(600) + 0.5 })],
    ["an exp in the past", () => forged({}, { exp: inSeconds(-1) }), "token_expired"],
    ["an nbf in the future", () => forged({}, { nbf: inSeconds(60) })],
    ["a string for nbf", () => forged({}, { nbf: "0" })],
    ["a critical header", () => forged({ crit: ["b64"], b64: false })],
    ["an unknown kid", () => forged({ kid: "k2" })],
    ["kid __proto__", () => forged({ kid: "__proto__" }, {}, "")],
    ["kid constructor", () => forged({ kid: "constructor" }, {}, "")],
    ["a kid that is no text", () => forged({ kid: ["k1"] })],
    ["no kid", () => forged({ kid: null })],
    ["another issuer", () => forged({}, { iss: "somebody-else" })],
    ["another audience", () => forged({}, { aud: "somebody-else" })],
    ["a list of audiences", () => forged({}, { aud: ["deepseek-proxy", "x"] })],
    ["no sid", () => forged({}, { sid: null })],
    ["an empty sid", () => forged({}, { sid: "" })],
    ["a sid that nobody has", () => forged({}, { sid: "nobody's" })],
    ["no sub", () => forged({}, { sub: null })],
    ["a sub that nobody has", () => forged({}, { sub: "nobody" })],
    ["sub __proto__", () => forged({}, { sub: "__proto__" })],
    ["an older version of the account", () => forged({}, { ver: 0 })],
    ["a claim that isn't ours", () => forged({}, { admin: true })],
    [
      "a changed payload",
      () => token.replace(/\.[^.]+\./, `.${Buffer.from('{"sub":"alice"}').toString("base64url")}.`),
    ],
    ["a payload that is no JSON", () => `${token.split(".")[0] ?? ""}.bm9uc2Vuc2U.${token.split(".")[2] ?? ""}`],
    ["four parts", () => `${token}.x`],
    ["one part", () => "nonsense"],
    ["dots alone", () => ".."],
    ["10 KB", () => "a".repeat(10_000)],
  ])("is refused with 401: %s", async (_what, make, code = "invalid_token") => {
    expectRefusal(proxy, await answerOf(await ask(proxy, `Bearer ${make()}`)), code);
  });

  it.each(["", "Bearer", "Bearer ", "Basic YWxpY2U6eA==", "bearer", "Token x"])(
    'is missing from "Authorization: %s": 401',
    async (authorization) => {
      expectRefusal(proxy, await answerOf(await ask(proxy, authorization)), "missing_token");
    },
  );

  it("is refused with 431 where it has 100 KB: no header may be that long", async () => {
    const connection = sendRaw(
      proxy.url,
      rawRequest("GET /auth/quota", [`Authorization: Bearer ${"a".repeat(100_000)}`]),
    );
    expectRefusal(proxy, await connection.answer(), "headers_too_large");
    connection.socket.destroy();
  });

  it("passes with any spelling of Bearer", async () => {
    const answer = await fetch(`${proxy.url}/auth/quota`, { headers: { authorization: `bEARER ${token}` } });
    expect(answer.status).toBe(200);
  });
});

describe("a token that was good when it was issued", () => {
  let proxy: RunningProxy;

  afterEach(() => proxy.dispose());

  const file = (): string => join(proxy.folder, "users", "alice.toml");
  const quota = (token: string): Promise<Response> => fetch(`${proxy.url}/auth/quota`, { headers: bearer(token) });

  async function refusedSoon(token: string, status: number): Promise<Response> {
    await eventually(async () => {
      expect((await quota(token)).status).toBe(status);
    });
    return quota(token);
  }

  it("ends when its life is over, also if it has just been used", async () => {
    let now = Date.now();
    const clock: Clock = { ...systemClock, now: () => now };
    proxy = await startProxy({ clock });
    const token = await proxy.login();
    expect((await quota(token)).status).toBe(200);
    now += 900_000;
    expectRefusal(proxy, await answerOf(await quota(token)), "token_expired");
    expectRefusal(proxy, await answerOf(await quota(token)), "token_expired");
  });

  it("is refused once its user is disabled by hand, and stays so when the user is enabled again", async () => {
    skipOverRedis("is about a file that is changed while the proxy runs");
    proxy = await startProxy();
    const token = await proxy.login();
    const text = await readFile(file(), "utf8");
    await writeFile(file(), `${text}is_active = false\n`);
    expectRefusal(proxy, await answerOf(await refusedSoon(token, 403)), "account_disabled");
    expect((await post(`${proxy.url}/auth/login`, { username: "alice", password: alicePassword })).status).toBe(403);
    const disabled = await readFile(file(), "utf8");
    await writeFile(file(), disabled.replace("is_active = false", "is_active = true"));
    expectRefusal(proxy, await answerOf(await refusedSoon(token, 401)), "invalid_token");
    expect((await quota(await proxy.login())).status).toBe(200);
  });

  it("is refused once its user has a new password", async () => {
    skipOverRedis("is about a file that is changed while the proxy runs");
    proxy = await startProxy();
    const token = await proxy.login();
    const text = await readFile(file(), "utf8");
    await writeFile(file(), text.replace(/password_hash = .*/, 'password = "another horse battery"'));
    expectRefusal(proxy, await answerOf(await refusedSoon(token, 401)), "invalid_token");
    expect((await quota(await proxy.login("alice", "another horse battery"))).status).toBe(200);
    expect(await readFile(file(), "utf8")).not.toContain("another horse battery");
  });

  it("is refused once its user is deleted, and not revived by a new user of the same name", async () => {
    skipOverRedis("is about a file that is changed while the proxy runs");
    proxy = await startProxy();
    const token = await proxy.login();
    await unlink(file());
    expectRefusal(proxy, await answerOf(await refusedSoon(token, 401)), "invalid_token");
    await writeFile(file(), userFile("alice", "another horse battery"));
    await eventually(async () => {
      expect((await quota(await proxy.login("alice", "another horse battery"))).status).toBe(200);
    });
    expect((await quota(token)).status).toBe(401);
  });

  it("lives on while secrets rotate, until its own is taken away", async () => {
    proxy = await startProxy({ env: { JWT_SECRETS: `old:${oldSecret}` } });
    const folder = proxy.folder;
    const token = await proxy.login();
    await proxy.stop();

    proxy = await startProxy({ folder, env: { JWT_SECRETS: `new:${newSecret},old:${oldSecret}` } });
    expect(await usedRequests(proxy, token)).toBe(0);
    const newer = await proxy.login();
    expect(readToken(newer).header).toMatchObject({ alg: "HS256", kid: "new" });
    // The kid decides: no secret is tried on another's tokens.
    const mixed = forgeToken({ ...readToken(newer).header, kid: "old" }, readToken(newer).payload, newSecret);
    expect((await quota(mixed)).status).toBe(401);
    await proxy.stop();

    proxy = await startProxy({ folder, env: { JWT_SECRETS: `new:${newSecret}` } });
    expect((await quota(token)).status).toBe(401);
    expect((await quota(newer)).status).toBe(200);
    await rm(folder, { recursive: true, force: true });
  });
});
