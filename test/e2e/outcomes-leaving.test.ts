import { describe, expect, it } from "vitest";
import { chatBody, estimatedPrompt, nothing, priced, startBilledProxy, weight } from "../support/billed-proxy.ts";
import type { BilledOptions } from "../support/billed-proxy.ts";
import { openStream } from "../support/sse-client.ts";
import { bearer } from "../support/start-proxy.ts";

const drain = '[abort]\npolicy = "drain"\n';
const cancel = '[abort]\npolicy = "cancel"\n';
const usage = { prompt_tokens: 50, completion_tokens: 9 };

/** A streamed chat whose client has seen its first event. */
async function chatting(options: BilledOptions) {
  const billed = await startBilledProxy(options);
  const opening = billed.open();
  const call = await billed.upstream.next();
  await call.delta("one");
  const client = await opening;
  await client.nextEvent();
  return { ...billed, call, client };
}

describe("a client that leaves", () => {
  it("before the first event pays nothing, and the provider is left too", async () => {
    const billed = await startBilledProxy({ config: drain });
    const token = await billed.proxy.login();
    const url = `${billed.proxy.url}/chat/completions`;
    let leave = (): void => undefined;
    const opening = openStream(url, { headers: bearer(token), body: chatBody(true), onSent: (how) => (leave = how) });
    const call = await billed.upstream.next();
    await call.comment();
    leave();
    await expect(opening).rejects.toThrow();
    await call.closed;
    expect(call.left).toBe(true);
    expect(await billed.logged()).toMatchObject({ outcome: "client_gone", requests: 0, cost_nano: 0 });
    expect(await billed.used()).toEqual(nothing);
  });

  it.each([
    ["to drain", { config: drain }],
    ["to drain where tokens are limited", {}],
  ])("in the middle pays exactly what is reported in the end: told %s", async (_, options) => {
    const { call, client, used, logged, away } = await chatting(options);
    await away(() => {
      client.leave();
    });
    await call.delta("two");
    await call.finish(usage);
    expect(await logged()).toMatchObject({ outcome: "client_gone", requests: weight, estimated: false });
    expect(call.left).toBe(false);
    expect(await used()).toEqual(priced(50, 9));
  });

  it.each<[string, BilledOptions]>([
    ["to cancel", { config: cancel }],
    ["to drain where tokens are limited, and only requests are", { requestsOnly: true }],
  ])("in the middle pays an estimate, and the provider is left at once: told %s", async (_, options) => {
    const { call, client, used, logged } = await chatting(options);
    client.leave();
    await call.closed;
    expect(call.left).toBe(true);
    const line = await logged();
    expect(line).toMatchObject({ outcome: "client_gone", requests: weight, estimated: true, output_tokens: 1 });
    expect([weight, line.input_tokens + line.output_tokens, line.cost_nano]).toEqual(priced(estimatedPrompt(true), 1));
    expect((await used())[0]).toBe(weight);
  });

  it("just before the usage chunk pays exactly all the same", async () => {
    const { call, client, used, logged, away } = await chatting({ config: drain });
    await call.delta("the end.");
    await client.nextEvent();
    await away(() => {
      client.leave();
    });
    await call.finish(usage);
    expect(await logged()).toMatchObject({ outcome: "client_gone", estimated: false });
    expect(await used()).toEqual(priced(50, 9));
  });

  it.each([drain, cancel])("after the usage chunk pays exactly, whatever the policy: %j", async (config) => {
    const { call, client, used, logged, away } = await chatting({ config });
    await call.event({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }], usage });
    await client.nextEvent();
    await away(() => {
      client.leave();
    });
    if (config === drain) await call.done();
    await call.closed;
    expect(await logged()).toMatchObject({ outcome: "client_gone", requests: weight, estimated: false });
    expect(await used()).toEqual(priced(50, 9));
  });

  it("waiting for one JSON pays exactly what is reported in the end", async () => {
    const billed = await startBilledProxy({ config: drain });
    const token = await billed.proxy.login();
    const url = `${billed.proxy.url}/chat/completions`;
    let leave = (): void => undefined;
    const opening = openStream(url, { headers: bearer(token), body: chatBody(false), onSent: (how) => (leave = how) });
    const call = await billed.upstream.next();
    await call.delta("one");
    await expect.poll(() => billed.used().catch((error: unknown) => String(error))).toContain("running");
    const left = expect(opening).rejects.toThrow();
    await billed.away(leave);
    await left;
    await call.delta("two");
    await call.finish(usage);
    expect(await billed.logged()).toMatchObject({ outcome: "client_gone", estimated: false });
    expect(await billed.used()).toEqual(priced(50, 9));
  });
});

describe("an answer that nobody reads any more is followed", () => {
  it("no longer than drain_seconds", async () => {
    const { call, client, used, logged } = await chatting({ config: `${drain}drain_seconds = 0.2\n` });
    client.leave();
    await call.closed;
    expect(call.left).toBe(true);
    expect(await logged()).toMatchObject({ outcome: "client_gone", requests: weight, estimated: true });
    expect(await used()).toEqual(priced(estimatedPrompt(true), 1));
  });

  it("no further than drain_tokens", async () => {
    const { call, client, used, logged, away } = await chatting({
      config: `${drain}drain_seconds = 60\ndrain_tokens = 5\n`,
    });
    await away(() => {
      client.leave();
    });
    let sent = 1;
    while (!call.left && sent < 10_000) {
      await Promise.race([call.delta("on and on").catch(() => undefined), call.closed]);
      await new Promise(setImmediate);
      sent++;
    }
    expect(call.left).toBe(true);
    const line = await logged();
    expect(line).toMatchObject({ outcome: "client_gone", estimated: true });
    expect(line.output_tokens).toBeGreaterThan(5);
    expect(line.output_tokens).toBeLessThanOrEqual(sent);
    expect(await used()).toEqual(priced(estimatedPrompt(true), line.output_tokens));
  });

  it("to its breaking off, which then is no reason to give the charge back", async () => {
    const { call, client, used, logged, away } = await chatting({ config: drain });
    await away(() => {
      client.leave();
    });
    call.reset();
    expect(await logged()).toMatchObject({ outcome: "client_gone", requests: weight, estimated: true });
    expect(await used()).toEqual(priced(estimatedPrompt(true), 1));
  });
});
