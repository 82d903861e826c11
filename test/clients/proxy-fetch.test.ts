import OpenAI from "openai";
import { afterEach, describe, expect, it } from "vitest";
import { createMemoryStore, createProxyFetch } from "../../clients/typescript/src/index.ts";
import { totpCode } from "../../src/identity/login/second-factor.ts";
import { jsonOf, logIn } from "../support/accounts.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { usedRequests } from "../support/quota.ts";
import {
  alicePassword,
  bearer,
  post,
  startProxy,
  type ProxyOptions,
  type RunningProxy,
  userFile,
} from "../support/start-proxy.ts";

const messages = [{ role: "user" as const, content: "Say hello." }];
const login = { username: "alice", password: alicePassword };

describe("createProxyFetch", () => {
  let proxy: RunningProxy;

  afterEach(() => proxy.dispose());

  const start = async (options: ProxyOptions = {}): Promise<RunningProxy> =>
    (proxy = await startProxy({ config: "[concurrency]\nmax_parallel = 64\n", ...options }));

  /** A fetch that counts requests by path. */
  function counting() {
    const counts = new Map<string, number>();
    const fetch: typeof globalThis.fetch = (input, init) => {
      const path = new URL(input instanceof Request ? input.url : input).pathname;
      counts.set(path, (counts.get(path) ?? 0) + 1);
      return globalThis.fetch(input, init);
    };
    return { fetch, sent: (path: string) => counts.get(path) ?? 0 };
  }

  const sdk = (fetch: typeof globalThis.fetch): OpenAI =>
    new OpenAI({ apiKey: "unused", baseURL: `${proxy.url}/v1`, fetch, maxRetries: 0 });

  it("logs in once for many requests of the OpenAI SDK, streamed or not", async () => {
    const { url: baseUrl } = await start();
    const { fetch, sent } = counting();
    const openai = sdk(createProxyFetch({ baseUrl, ...login, fetch }));
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => openai.chat.completions.create({ model: "sim-fast", messages })),
    );
    for (const answer of answers) expect(answer.choices[0]?.finish_reason).toBe("stop");
    let text = "";
    for await (const chunk of await openai.chat.completions.create({ model: "sim-fast", messages, stream: true })) {
      text += chunk.choices[0]?.delta.content ?? "";
    }
    expect(text).not.toBe("");
    expect(sent("/auth/login")).toBe(1);
  });

  it("refreshes once before the token expires, for 50 requests at a time", async () => {
    const clock = createManualClock(Math.floor(Date.now() / 1000) * 1000);
    const { url: baseUrl } = await start({ clock });
    const { fetch, sent } = counting();
    const proxyFetch = createProxyFetch({ baseUrl, ...login, fetch, now: () => clock.now() });
    const quota = () => proxyFetch(`${baseUrl}/auth/quota`).then(({ status }) => status);
    expect(await quota()).toBe(200);
    clock.advance(845_000);
    expect(new Set(await Promise.all(Array.from({ length: 50 }, quota)))).toEqual(new Set([200]));
    expect(sent("/auth/refresh")).toBe(1);
    expect(sent("/auth/login")).toBe(1);
    expect(sent("/auth/quota")).toBe(51);
  });

  it("repeats a request once whose token the proxy took for expired, and is charged once", async () => {
    const clock = createManualClock(Math.floor(Date.now() / 1000) * 1000);
    const { url: baseUrl } = await start({ clock });
    const { fetch, sent } = counting();
    const started = clock.now();
    // Its own clock stands still.
    const openai = sdk(createProxyFetch({ baseUrl, ...login, fetch, now: () => started }));
    await openai.chat.completions.create({ model: "sim-fast", messages });
    clock.advance(901_000);
    await Promise.all([1, 2, 3].map(() => openai.chat.completions.create({ model: "sim-fast", messages })));
    expect(sent("/auth/refresh")).toBe(1);
    expect(sent("/v1/chat/completions")).toBe(7);
    expect(await usedRequests(proxy, await proxy.login())).toBe(4);
  });

  it("logs in again after its session was ended, or says that it is over", async () => {
    const { url: baseUrl } = await start();
    const { fetch, sent } = counting();
    const proxyFetch = createProxyFetch({ baseUrl, ...login, fetch });
    const store = createMemoryStore();
    await createProxyFetch({ baseUrl, ...login, store })(`${baseUrl}/auth/quota`);
    const resumed = createProxyFetch({ baseUrl, store });
    expect((await resumed(`${baseUrl}/auth/quota`)).status).toBe(200);
    expect((await proxyFetch(`${baseUrl}/auth/quota`)).status).toBe(200);
    const { token } = await logIn(proxy, "alice", alicePassword);
    await post(`${baseUrl}/auth/logout-all`, {}, bearer(token));
    expect((await proxyFetch(`${baseUrl}/auth/quota`)).status).toBe(200);
    expect(sent("/auth/login")).toBe(2);
    const over = await jsonOf(resumed(`${baseUrl}/auth/quota`));
    expect([over.status, over.body.error?.code]).toEqual([401, "invalid_token"]);
    expect(await store.load()).toBeUndefined();
  });

  it("asks for a code where the user has a second factor, and says so where nobody is asked", async () => {
    const secret = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP";
    const { url: baseUrl } = await start({
      users: { alice: userFile("alice", alicePassword, `totp_secret = "${secret}"\n`) },
    });
    const quota = (fetch: typeof globalThis.fetch) => fetch(`${baseUrl}/auth/quota`);
    const refused = await quota(createProxyFetch({ baseUrl, ...login }));
    expect(await refused.json()).toMatchObject({ error: { code: "otp_required" } });
    let asked = 0;
    const otp = () => {
      asked++;
      return totpCode(secret, Math.floor(Date.now() / 30_000));
    };
    const proxyFetch = createProxyFetch({ baseUrl, ...login, otp });
    expect((await quota(proxyFetch)).status).toBe(200);
    expect((await quota(proxyFetch)).status).toBe(200);
    expect(asked).toBe(1);
  });

  it("passes a refused login on as the answer, and doesn't repeat a wrong password", async () => {
    const { url: baseUrl } = await start();
    const { fetch, sent } = counting();
    const wrong = createProxyFetch({ baseUrl, username: "alice", password: "wrong password", fetch });
    const openai = new OpenAI({ apiKey: "unused", baseURL: `${baseUrl}/v1`, fetch: wrong });
    for (let time = 0; time < 3; time++) {
      await expect(openai.chat.completions.create({ model: "sim-fast", messages })).rejects.toMatchObject({
        status: 401,
        code: "invalid_credentials",
      });
    }
    expect(sent("/auth/login")).toBe(1);
    expect(sent("/v1/chat/completions")).toBe(0);
  });

  it("signs, anew for every try", async () => {
    const { url: baseUrl } = await start();
    const { token } = await logIn(proxy, "alice", alicePassword);
    const made = await jsonOf<{ key: string; signing_secret: string }>(
      post(`${baseUrl}/auth/keys`, { name: "signed", require_signature: true }, bearer(token)),
    );
    const signing = { secret: made.body.signing_secret };
    const openai = sdk(createProxyFetch({ baseUrl: `${baseUrl}/v1/`, apiKey: made.body.key, signing }));
    for (let time = 0; time < 2; time++) {
      const answer = await openai.chat.completions.create({ model: "sim-fast", messages });
      expect(answer.choices[0]?.finish_reason).toBe("stop");
    }
    const models = await openai.models.list({ query: { a: "ä b" } });
    expect(models.data.length).toBeGreaterThan(0);
    const unsigned = createProxyFetch({ baseUrl, apiKey: made.body.key });
    expect((await unsigned(`${baseUrl}/v1/models`)).status).toBe(401);
  });

  it("sends credentials to the proxy only", async () => {
    const { url: baseUrl } = await start();
    const proxyFetch = createProxyFetch({ baseUrl, ...login });
    await expect(proxyFetch("http://127.0.0.1:1/v1/models")).rejects.toThrow("is not the proxy");
    await expect(proxyFetch(baseUrl.replace("http:", "https:"))).rejects.toThrow("is not the proxy");
  });

  it("lets one caller go without ending the login that others wait for", async () => {
    const { url: baseUrl } = await start();
    const { fetch, sent } = counting();
    const proxyFetch = createProxyFetch({ baseUrl, ...login, fetch });
    const leaving = new AbortController();
    const left = proxyFetch(`${baseUrl}/auth/quota`, { signal: leaving.signal });
    const staying = proxyFetch(`${baseUrl}/auth/quota`);
    leaving.abort();
    await expect(left).rejects.toThrow();
    expect((await staying).status).toBe(200);
    expect(sent("/auth/login")).toBe(1);
  });
});
