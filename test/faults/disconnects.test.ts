import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";
import { describe, expect, it, onTestFinished } from "vitest";
import { delayedBackends, failingBackends } from "../support/backends.ts";
import {
  chatBody,
  estimatedPrompt,
  nothing,
  priced,
  startBilledProxy,
  weight,
  type BilledOptions,
  type BilledProxy,
} from "../support/billed-proxy.ts";
import { eventually } from "../support/eventually.ts";
import { rawRequest, sendRaw } from "../support/raw-http.ts";
import { openStream } from "../support/sse-client.ts";
import { bearer } from "../support/start-proxy.ts";

const noneFree = "[abort]\nfree_disconnects_per_hour = 0\n";
const path = "/chat/completions";

/** Sends a request, and says how to leave before it is answered. */
async function sending({ proxy }: Pick<BilledProxy, "proxy">, to: string = path, body: object = chatBody(true)) {
  let leave = (): void => undefined;
  const headers = bearer(await proxy.login());
  const sent = new Promise<void>((resolve) => {
    openStream(`${proxy.url}${to}`, {
      headers,
      body,
      onSent(how) {
        leave = how;
        resolve();
      },
    }).catch(() => undefined);
  });
  await sent;
  return { leave };
}

/** Once nothing runs any more. */
function expectUsed(billed: BilledProxy, amounts: readonly number[]): Promise<void> {
  return eventually(async () => {
    expect(await billed.used()).toEqual(amounts);
  });
}

const { messages } = chatBody(true) as { readonly messages: readonly object[] };
const message = { model: "flash", max_tokens: 10, messages };
const prompt = { model: "flash", prompt: "Once upon a time", max_tokens: 10 };

describe("M10: a client that leaves before the first event", () => {
  it("is free ten times in an hour, and is then charged the prompt, until its limit is reached", async () => {
    const billed = await startBilledProxy();
    const { proxy, upstream } = billed;
    // Of a limit of 100 requests each takes two.
    const charged = 50;
    for (let left = 0; left < 10 + charged; left++) {
      const { leave } = await sending(billed);
      const call = await upstream.next();
      leave();
      await call.closed;
      if (left === 9) await expectUsed(billed, nothing);
    }
    const [, tokens = 0, nano = 0] = priced(estimatedPrompt(true), 0);
    await expectUsed(billed, [100, charged * tokens, charged * nano]);
    const refused = await billed.collect();
    expect(refused.status).toBe(402);
    expect(await refused.json()).toMatchObject({ error: { code: "quota_exceeded" } });
    expect(upstream.received).toBe(10 + charged);
    const usage = await fetch(`${proxy.url}/auth/usage`, { headers: bearer(await proxy.login()) });
    expect(await usage.json()).toMatchObject({
      rows: [
        {
          requests: 100,
          input_tokens: charged * tokens,
          output_tokens: 0,
          outcomes: { client_gone: charged },
          estimated_requests: charged,
          unsettled_requests: 0,
        },
      ],
    });
  });

  it.each<[string, string, object, BilledOptions["kind"]]>([
    ["a streamed chat", path, chatBody(true), "deepseek"],
    ["a chat as one JSON", path, chatBody(false), "deepseek"],
    ["a streamed completion", "/v1/completions", { ...prompt, stream: true }, "deepseek"],
    ["a completion as one JSON", "/v1/completions", prompt, "deepseek"],
    ["a streamed message", "/anthropic/v1/messages", { ...message, stream: true }, "deepseek"],
    ["a message as one JSON", "/anthropic/v1/messages", message, "deepseek"],
    ["embeddings", "/v1/embeddings", { model: "flash", input: ["one", "two"] }, "openai"],
  ])("is charged the prompt once no more are free: %s", async (_, to, body, kind) => {
    const billed = await startBilledProxy({ config: noneFree, kind, backends: delayedBackends });
    const { leave } = await sending(billed, to, body);
    const call = await billed.upstream.next();
    if (kind === "deepseek") await call.comment();
    leave();
    await call.closed;
    const tokens = Math.ceil(JSON.stringify(body).length / 4);
    expect(await billed.logged()).toMatchObject({
      outcome: "client_gone",
      code: "client_gone",
      provider: "upstream",
      requests: weight,
      input_tokens: tokens,
      output_tokens: 0,
      estimated: true,
    });
    expect(await billed.used()).toEqual(priced(tokens, 0));
  });

  it("pays nothing where the charge can't be recorded", async () => {
    const billed = await startBilledProxy({ config: noneFree, backends: (own) => failingBackends(own, "commit") });
    const { leave } = await sending(billed);
    const call = await billed.upstream.next();
    leave();
    await call.closed;
    expect(await billed.logged()).toMatchObject({ outcome: "client_gone", requests: 0, cost_nano: 0 });
    expect(await billed.used()).toEqual(nothing);
    expect(billed.proxy.logLines.join("")).toContain("the connection is lost");
  });

  it("pays nothing while it waits after a failure of the provider", async () => {
    const billed = await startBilledProxy({
      config: `base_ms = 60000\nmax_ms = 60000\n[timeouts]\ntotal_seconds = 600\n${noneFree}`,
      attempts: 2,
    });
    const { leave } = await sending(billed);
    (await billed.upstream.next()).respond(500, { error: { message: "down" } });
    await eventually(() => {
      if (!billed.proxy.logLines.join("").includes("the provider failed")) throw new Error("not answered yet");
    });
    leave();
    expect(await billed.logged()).toMatchObject({ outcome: "client_gone", requests: 0 });
    expect(await billed.used()).toEqual(nothing);
  });

  it.each([400, 500])("pays nothing while the words of a provider's refusal arrive: %i", async (status) => {
    const billed = await startBilledProxy({ config: noneFree });
    const { leave } = await sending(billed);
    const call = await billed.upstream.next();
    call.head(status, { "content-type": "application/json" });
    await call.send('{"error":');
    // What was sent before an answer came is read by then.
    await fetch(`${billed.proxy.url}/healthz`);
    await billed.away(leave);
    await call.closed;
    expect(await billed.logged()).toMatchObject({ outcome: "client_gone", requests: 0 });
    expect(await billed.used()).toEqual(nothing);
  });

  it("pays nothing before there is a connection to the provider", async () => {
    // It accepts, and never answers the handshake of TLS.
    const silent = createServer();
    silent.listen(0, "127.0.0.1");
    await once(silent, "listening");
    onTestFinished(() => void silent.close());
    const accepted = once(silent, "connection");
    const { port } = silent.address() as AddressInfo;
    const billed = await startBilledProxy({
      config: noneFree,
      through: () => Promise.resolve(`https://127.0.0.1:${port}`),
    });
    const { leave } = await sending(billed);
    await accepted;
    leave();
    expect(await billed.logged()).toMatchObject({ outcome: "client_gone", requests: 0 });
    expect(await billed.used()).toEqual(nothing);
  });

  it("pays nothing where the proxy stops", async () => {
    const billed = await startBilledProxy({ config: noneFree });
    await sending(billed);
    const call = await billed.upstream.next();
    await billed.proxy.stop();
    await call.closed;
    expect(await billed.logged()).toMatchObject({ outcome: "shutdown", requests: 0, cost_nano: 0 });
  });
});

describe("M10: an answer in one JSON that is cut for want of budget", () => {
  it("is free as often as a disconnect, in the same count, and then charged the prompt", async () => {
    const asked = chatBody(false);
    const bound = Math.ceil(JSON.stringify(asked).length / 2) + 10;
    const prompt = estimatedPrompt(false);
    const billed = await startBilledProxy({
      maxTokens: bound + 5 + prompt,
      config: "[abort]\nfree_disconnects_per_hour = 2\n",
    });
    const { leave } = await sending(billed, path, asked);
    const call = await billed.upstream.next();
    leave();
    await call.closed;
    for (const used of [nothing, priced(prompt, 0)]) {
      const asking = billed.collect();
      const call = await billed.upstream.next();
      for (let sent = 0; sent < 60; sent++) await call.delta("word ").catch(() => undefined);
      const answer = await asking;
      expect(answer.status).toBe(402);
      expect(await answer.json()).toMatchObject({ error: { code: "quota_exceeded_midstream" } });
      expect(await billed.used()).toEqual(used);
    }
  });
});

describe("a client that sent several requests on one connection", () => {
  it("is noticed by all of them when it leaves", async () => {
    const { proxy, upstream } = await startBilledProxy({ config: "[concurrency]\nmax_parallel = 5\n" });
    const token = await proxy.login();
    const headers = [`Authorization: Bearer ${token}`, "Content-Type: application/json"];
    const request = rawRequest(`POST ${path}`, headers, JSON.stringify(chatBody(true)));
    const { socket } = sendRaw(proxy.url, request.repeat(3));
    const calls = [await upstream.next(), await upstream.next(), await upstream.next()];
    socket.destroy();
    await Promise.all(calls.map(({ closed }) => closed));
    await eventually(() => {
      expect(proxy.services.gateway.running()).toBe(0);
    });
  });
});
