import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import OpenAI from "openai";
import { afterEach, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.ts";
import { usedRequests } from "../support/quota.ts";
import { openStream, type SseClient } from "../support/sse-client.ts";
import { alicePassword, bearer, post, startProxy, userFile, type RunningProxy } from "../support/start-proxy.ts";

const messages = [{ role: "user" as const, content: "Say hello." }];
const noticing = "max_wait_ms = 60000\nnotice_after_ms = 1\n";

/** One request of each API, as a stream, and the last event of its answer. */
const apis = [
  ["chats", "/v1/chat/completions", { messages }, "[DONE]"],
  ["messages", "/anthropic/v1/messages", { messages, max_tokens: 50 }, "message_stop"],
  ["responses", "/v1/responses", { input: "Say hello." }, "response.completed"],
] as const;

describe("requests that wait for their turn", () => {
  let proxy: RunningProxy;
  let token: string;

  afterEach(() => proxy.dispose());

  async function start(concurrency: string, quota = ""): Promise<void> {
    const users = { alice: userFile("alice", alicePassword), bob: userFile("bob", alicePassword) };
    proxy = await startProxy({ config: `[concurrency]\n${concurrency}\n${quota}`, users });
    token = await proxy.login();
  }

  const permitsAre = (held: number, waiting: number): Promise<void> =>
    eventually(() => {
      expect([proxy.services.concurrency.inFlight(), proxy.services.concurrency.waiting()]).toEqual([held, waiting]);
    });

  const send = (path: string, body: object, as = token, onSent?: (leave: () => void) => void): Promise<SseClient> =>
    openStream(proxy.url + path, {
      headers: bearer(as),
      body: { model: "sim-fast", stream: true, ...body },
      ...(onSent === undefined ? {} : { onSent }),
    });

  /** Takes the only permit; returns what gives it back. */
  async function hold(as = token): Promise<() => void> {
    let leave = (): void => undefined;
    const holder = send("/v1/chat/completions", { model: "sim-stall-first", messages }, as, (go) => (leave = go));
    holder.catch(() => undefined);
    await permitsAre(1, 0);
    return () => {
      leave();
    };
  }

  it.each(apis)("are told their place by comments, before the events of %s", async (_name, path, body, last) => {
    await start(`max_parallel = 1\n${noticing}`);
    const release = await hold();
    const client = await send(path, body);
    expect(client.status).toBe(200);
    expect((await client.nextEvent())?.comment).toBe("queued place=1");
    expect(client.headers).not.toHaveProperty("x-quota-remaining");
    await permitsAre(1, 1);
    expect(await usedRequests(proxy, token)).toBe(0);
    release();
    const events = await client.rest();
    expect(events.at(-1)?.raw).toContain(last);
    expect(events.filter(({ comment }) => comment?.startsWith("queued") === true)).toEqual([]);
    expect(await client.ended).toBe("complete");
    expect(await usedRequests(proxy, token)).toBe(1);
    await permitsAre(0, 0);
  });

  it("are served once their user may run more, though nothing else ends", async () => {
    await start("max_parallel = 1\nmax_wait_ms = 60000");
    const release = await hold();
    const second = send("/v1/chat/completions", { messages });
    await permitsAre(1, 1);
    await proxy.services.users.update("alice", { max_parallel: 2 });
    expect((await (await second).rest()).at(-1)?.raw).toContain("[DONE]");
    await permitsAre(1, 0);
    await proxy.services.users.update("alice", { max_parallel: 1 });
    const third = send("/v1/chat/completions", { messages });
    await permitsAre(1, 1);
    release();
    expect((await third).status).toBe(200);
  });

  it.each([
    ["no cap of all is left", "max_total = 1", "max_total = 0"],
    ["the cap of all is raised", "max_total = 1", "max_total = 2"],
    ["the cap of the model is gone", "per_model = { sim-stall-first = 1 }", ""],
    ["the cap of the provider is raised", "per_provider = { simulator = 1 }", "per_provider = { simulator = 2 }"],
    ["the cap of the group is raised", "", null],
  ])("are served once %s, though nothing else ends", async (_what, before, after) => {
    const toml = (caps: string): string => `[concurrency]\nmax_parallel = 9\nmax_wait_ms = 60000\n${caps}\n`;
    proxy = await startProxy({
      configFile: true,
      config: toml(before),
      users: { alice: userFile("alice", alicePassword), boss: userFile("boss", alicePassword, 'roles = ["admin"]\n') },
    });
    token = await proxy.login();
    const boss = bearer(await proxy.login("boss"));
    if (after === null)
      await post(`${proxy.url}/admin/groups`, { name: "team", members: ["alice"], max_parallel: 1 }, boss);
    for (const waiting of [0, 1]) {
      send("/v1/chat/completions", { model: "sim-stall-first", messages }).catch(() => undefined);
      await permitsAre(1, waiting);
    }
    if (after === null) {
      const headers = { ...boss, "content-type": "application/json" };
      const body = JSON.stringify({ max_parallel: 2 });
      await fetch(`${proxy.url}/admin/groups/team`, { method: "PATCH", headers, body });
    } else {
      await writeFile(join(proxy.folder, "config.toml"), proxy.configText(toml(after)));
      expect((await post(`${proxy.url}/admin/config/reload`, {}, boss)).status).toBe(200);
    }
    await permitsAre(2, 0);
  });

  it("are served as any other in OpenAI's SDK, which passes over the comments", async () => {
    await start(`max_parallel = 1\n${noticing}`);
    let texts: Promise<string>[] = [];
    let onHeaders = (): void => undefined;
    const openai = new OpenAI({
      apiKey: token,
      baseURL: `${proxy.url}/v1`,
      maxRetries: 0,
      fetch: async (...given) => {
        const response = await fetch(...given);
        texts = [...texts, response.clone().text()];
        onHeaders();
        return response;
      },
    });
    onHeaders = await hold();
    let text = "";
    const chunks = await openai.chat.completions.create({ model: "sim-fast", messages, stream: true });
    for await (const chunk of chunks) text += chunk.choices[0]?.delta.content ?? "";
    expect(text).not.toBe("");

    onHeaders = await hold();
    const response = await openai.responses.stream({ model: "sim-fast", input: "Hello" }).finalResponse();
    expect(response.status).toBe("completed");
    for (const all of await Promise.all(texts)) expect(all).toMatch(/^: queued place=1\n\n/);
  });

  it("end with an error event if they are refused after they were told their place", async () => {
    await start(`max_parallel = 1\nmax_wait_ms = 100\nnotice_after_ms = 1\n`);
    const release = await hold();
    const client = await send("/v1/chat/completions", { messages });
    const error = (await client.rest()).at(-1)?.json?.error;
    expect(error).toMatchObject({ code: "concurrency_exceeded", details: { scope: "user", max: 1 } });
    expect(await client.ended).toBe("complete");
    await permitsAre(1, 0);
    release();
    await permitsAre(0, 0);
    expect(await usedRequests(proxy, token)).toBe(0);
  });

  it("free everything when they leave, and are charged nothing", async () => {
    await start(`max_parallel = 1\n${noticing}`);
    const release = await hold();
    const client = await send("/v1/chat/completions", { messages });
    await client.nextEvent();
    client.leave();
    await permitsAre(1, 0);
    release();
    await permitsAre(0, 0);
    await eventually(() => {
      expect(proxy.services.gateway.running()).toBe(0);
    });
    expect(await usedRequests(proxy, token)).toBe(0);
  });

  it.each([
    ["process", "max_total = 1\n", {}],
    ["model", "[concurrency.per_model]\n'sim-*' = 1\n", { model: "sim-stall-first" }],
    ["provider", "[concurrency.per_provider]\nsimulator = 1\n", {}],
  ])("share the cap of the %s, and its refusal says so", async (scope, caps, body) => {
    await start(`max_wait_ms = 0\n${caps}`);
    const release = await hold();
    const bob = await proxy.login("bob");
    const refused = await send("/v1/chat/completions", { messages, ...body, stream: false }, bob);
    await refused.ended;
    expect(refused.status).toBe(429);
    expect(JSON.parse(refused.text)).toMatchObject({
      error: { code: "concurrency_exceeded", details: { scope, max: 1 } },
    });
    expect(refused.headers["retry-after"]).toBe("1");
    const metrics = await (await fetch(`${proxy.url}/metrics`)).text();
    expect(metrics).toContain(`rate_limit_rejections_total{rule="concurrency_${scope}"} 1`);
    release();
    await permitsAre(0, 0);
    const served = await send("/v1/chat/completions", { messages, stream: false }, bob);
    expect(served.status).toBe(200);
  });
});
