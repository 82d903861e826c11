import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { systemClock, type Clock } from "../../src/lib/clock.ts";
import { eventually } from "../support/eventually.ts";
import { usedRequests } from "../support/quota.ts";
import { answerOf, expectRefusal } from "../support/refusals.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";
import { openStream, type SseClient } from "../support/sse-client.ts";
import { alicePassword, bearer, post, startProxy, userFile, type RunningProxy } from "../support/start-proxy.ts";

const chat = { model: "deepseek-flash", messages: [{ role: "user", content: "hi" }] };

describe("the limits on chats", () => {
  let upstream: ScriptedUpstream;
  let proxy: RunningProxy;
  let token: string;

  beforeEach(async () => {
    upstream = await startScriptedUpstream();
  });

  afterEach(async () => {
    await proxy.dispose();
    await upstream.close();
  });

  async function start(config: string, alice = "", clock: Clock = systemClock): Promise<void> {
    const users = { alice: userFile("alice", alicePassword, alice), bob: userFile("bob", alicePassword) };
    proxy = await startProxy({ upstreamUrl: upstream.url, config, users, clock });
    token = await proxy.login();
  }

  const ask = async (as = token): ReturnType<typeof answerOf> =>
    answerOf(await post(`${proxy.url}/chat/completions`, chat, bearer(as)));
  const open = (as = token, onSent?: (leave: () => void) => void): Promise<SseClient> =>
    openStream(`${proxy.url}/chat/completions`, {
      headers: bearer(as),
      body: chat,
      ...(onSent === undefined ? {} : { onSent }),
    });

  /** Opens a chat whose answer has begun. */
  async function running(as = token) {
    const opening = open(as);
    const call = await upstream.next();
    await call.delta("a");
    return { call, client: await opening };
  }

  async function rejections(rule: string): Promise<number> {
    const metrics = await (await fetch(`${proxy.url}/metrics`)).text();
    return Number(new RegExp(`^rate_limit_rejections_total\\{rule="${rule}"\\} (\\d+)$`, "m").exec(metrics)?.[1]);
  }

  const waiting = (count: number): Promise<void> =>
    eventually(() => {
      expect(proxy.services.concurrency.waiting()).toBe(count);
    });

  it("refuse what comes past the rate of all users, and say when to come again", async () => {
    await start("[rate_limit]\nrequests_per_second = 0.001\n");
    const { call, client } = await running();
    await call.finish();
    await client.rest();
    const answer = await ask(await proxy.login("bob"));
    const { details } = expectRefusal(proxy, answer, "rate_limited");
    expect(details).toEqual({ rule: "global" });
    expect(Number(answer.headers["retry-after"])).toBeGreaterThan(900);
    expect(Number(answer.headers["retry-after"])).toBeLessThanOrEqual(1000);
    expect(await rejections("global")).toBe(1);
    expect(upstream.received).toBe(1);
    expect(await usedRequests(proxy, token)).toBe(1);
    expect(proxy.services.concurrency.inFlight()).toBe(0);
  });

  it("let a burst of twice the rate pass, then one at a time", async () => {
    let now = 0;
    const config = "[rate_limit]\nrequests_per_second = 3\n";
    await start(config, "max_parallel = 10\n", { ...systemClock, monotonic: () => now });
    await Promise.all(Array.from({ length: 6 }, () => running()));
    expect(expectRefusal(proxy, await ask(), "rate_limited")).toMatchObject({ details: { rule: "global" } });
    now += 334;
    await running();
    expectRefusal(proxy, await ask(), "rate_limited");
    expect(upstream.received).toBe(7);
  });

  it("make the second chat of a user wait for the first, and no other user's", async () => {
    await start("[concurrency]\nmax_parallel = 1\nmax_wait_ms = 60000\n");
    const first = await running();
    const second = open();
    await waiting(1);
    const bob = await running(await proxy.login("bob"));
    await bob.call.finish();
    expect(upstream.received).toBe(2);

    await first.call.finish();
    const call = await upstream.next();
    await call.delta("b");
    await call.finish();
    expect((await (await second).rest()).at(-1)?.data).toBe("[DONE]");
    await first.client.rest();
    expect(await usedRequests(proxy, token)).toBe(2);
    expect(proxy.services.concurrency.inFlight()).toBe(0);
  });

  it("refuse the second chat once it has waited long enough", async () => {
    await start("[concurrency]\nmax_parallel = 1\nmax_wait_ms = 50\n");
    const first = await running();
    expectRefusal(proxy, await ask(), "concurrency_exceeded");
    expect(await rejections("concurrency")).toBe(1);
    expect(upstream.received).toBe(1);
    await first.call.finish();
    await first.client.rest();
    expect(await usedRequests(proxy, token)).toBe(1);
  });

  it("refuse at once what finds the waiting line full", async () => {
    await start("[concurrency]\nmax_parallel = 1\nmax_wait_ms = 60000\nmax_waiting = 1\n");
    await running();
    const second = open();
    await waiting(1);
    expectRefusal(proxy, await ask(), "concurrency_exceeded");
    await waiting(1);
    // The one that waits is refused when the proxy stops, and not before.
    const stopping = proxy.stop();
    expect((await second).status).toBe(503);
    await stopping;
  });

  it("forget a chat whose client leaves the waiting line, and serve the next in it", async () => {
    await start("[concurrency]\nmax_parallel = 1\nmax_wait_ms = 60000\n");
    const first = await running();
    let leave = (): void => undefined;
    const second = open(token, (go) => (leave = go));
    second.catch(() => undefined);
    await waiting(1);
    const third = open();
    await waiting(2);
    leave();
    await waiting(1);
    await first.call.finish();
    const call = await upstream.next();
    await call.delta("c");
    await call.finish();
    expect((await (await third).rest()).at(-1)?.data).toBe("[DONE]");
    expect(upstream.received).toBe(2);
    expect(await usedRequests(proxy, token)).toBe(2);
    expect(proxy.services.concurrency.inFlight()).toBe(0);
  });

  it("follow a user file that is changed while chats run", async () => {
    await start("[concurrency]\nmax_parallel = 1\nmax_wait_ms = 60000\n");
    await running();
    const second = open();
    await waiting(1);
    await proxy.services.users.update("alice", { max_parallel: 3 });
    // The line moves when somebody joins it: now both have a place.
    const third = open();
    for (let i = 0; i < 2; i++) await (await upstream.next()).delta("d");
    expect([(await second).status, (await third).status]).toEqual([200, 200]);
  });
});
