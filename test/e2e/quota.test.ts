import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { rm } from "node:fs/promises";
import { afterEach, describe, expect, it } from "vitest";
import type { Clock } from "../../src/lib/clock.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { quotaOf, usedRequests } from "../support/quota.ts";
import { alicePassword, bearer, post, startProxy, userFile, type RunningProxy } from "../support/start-proxy.ts";

const chat = { model: "sim-fast", stream: false, messages: [{ role: "user", content: "hi" }] };
const alice = { alice: userFile("alice", alicePassword, "max_parallel = 200\n") };

describe("the quota of a user", () => {
  let proxy: RunningProxy | undefined;
  let folder: string | undefined;

  afterEach(async () => {
    await proxy?.stop();
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
    proxy = folder = undefined;
  });

  async function start(requests: number, clock?: Clock): Promise<RunningProxy> {
    const config = `[quota.tiers]\nbasic = { requests = ${requests} }\n[rate_limit]\nrequests_per_second = 10000\n`;
    const options = { config, users: alice, ...(clock === undefined ? {} : { clock }) };
    proxy = await startProxy(folder === undefined ? options : { ...options, folder });
    folder = proxy.folder;
    return proxy;
  }

  function statuses(token: string, count: number): Promise<number[]> {
    const one = async (): Promise<number> => {
      const answer = await post(`${proxy?.url ?? ""}/chat/completions`, chat, bearer(token));
      await answer.text();
      return answer.status;
    };
    return Promise.all(Array.from({ length: count }, one));
  }

  it("lets exactly one of 100 concurrent requests have the last unit", async () => {
    const { login } = await start(1);
    const token = await login();
    const all = await statuses(token, 100);
    expect(all.filter((status) => status === 200)).toHaveLength(1);
    expect(all.filter((status) => status === 402)).toHaveLength(99);
    expect(await quotaOf(proxy ?? { url: "" }, token)).toMatchObject([{ used: 1, reserved: 0, remaining: 0 }]);
  });

  it("counts 50 first requests of a new user exactly", async () => {
    const { login } = await start(500);
    const token = await login();
    expect(await statuses(token, 50)).toEqual(Array(50).fill(200));
    expect(await usedRequests(proxy ?? { url: "" }, token)).toBe(50);
  });

  it("is the same after a restart", async () => {
    const first = await start(500);
    await statuses(await first.login(), 7);
    await first.stop();
    const snapshot = await readFile(join(first.folder, "users", "alice.quota.toml"), "utf8");
    expect(snapshot).toMatch(/requests = 7/);
    const second = await start(500);
    expect(await usedRequests(second, await second.login())).toBe(7);
  });

  it("comes back at local midnight of the reset day, and not twice when the clock steps back", async () => {
    let now = Date.parse("2026-12-31T15:59:00Z"); // 23:59 in Shanghai
    const clock: Clock = { now: () => now, monotonic: systemClock.monotonic };
    const { login } = await start(1, clock);
    expect(await statuses(await login(), 2)).toEqual(expect.arrayContaining([200, 402]));
    now = Date.parse("2026-12-31T16:00:00Z");
    const token = await login();
    expect(await quotaOf(proxy ?? { url: "" }, token)).toMatchObject([
      { used: 0, reset_at: "2027-01-31T16:00:00.000Z" },
    ]);
    expect(await statuses(token, 2)).toEqual(expect.arrayContaining([200, 402]));
    now = Date.parse("2026-12-31T15:59:30Z");
    expect(await statuses(await login(), 1)).toEqual([402]);
    now = Date.parse("2026-12-31T16:00:30Z");
    expect(await statuses(await login(), 1)).toEqual([402]);
  });

  it("is told in headers, with a warning from 80%", async () => {
    const { login, url } = await start(5);
    const token = await login();
    const headersOf = async (): Promise<Headers> => {
      const answer = await post(`${url}/chat/completions`, chat, bearer(token));
      await answer.text();
      return answer.headers;
    };
    const first = await headersOf();
    expect(first.get("x-quota-remaining")).toBe("4");
    expect(first.get("x-quota-reset")).toMatch(/^\d{4}-\d\d-\d\dT/);
    expect(first.get("x-quota-warning")).toBeNull();
    await headersOf();
    await headersOf();
    expect((await headersOf()).get("x-quota-warning")).toBe("80% of requests per month used");
  });

  it("is told as a decimal, however little is left", async () => {
    const price =
      '[[models.prices]]\nmodels = ["*"]\ncurrency = "CNY"\ncache_hit = 0\ncache_miss = 0\noutput = 0.001\n';
    const limit = '[quota.tiers]\nbasic = { limits = [{ metric = "cost", per = "day", max = 0.0000005 }] }\n';
    proxy = await startProxy({ config: price + limit, users: alice });
    ({ folder } = proxy);
    const answer = await post(
      `${proxy.url}/v1/chat/completions`,
      { ...chat, max_tokens: 10 },
      bearer(await proxy.login()),
    );
    await answer.text();
    expect(answer.headers.get("x-quota-remaining")).toMatch(/^0\.0000004\d*$/);
  });
});
