import { queryObjects } from "node:v8";
import { expect, it, onTestFinished } from "vitest";
import { RequestContext } from "../../src/gateway/request-context.ts";
import { ResponseWriter } from "../../src/gateway/response-writer.ts";
import { StreamReader } from "../../src/providers/stream/stream-reader.ts";
import { Attempt } from "../../src/providers/attempt.ts";
import { eventually } from "../support/eventually.ts";
import { usedRequests } from "../support/quota.ts";
import { startScriptedUpstream } from "../support/scripted-upstream.ts";
import { openStream } from "../support/sse-client.ts";
import { alicePassword, bearer, startProxy, userFile } from "../support/start-proxy.ts";

const streams = 300;

/** What a stream is made of, as it lives in memory after a full garbage collection. */
function living(): readonly number[] {
  return [RequestContext, ResponseWriter, Attempt, StreamReader].map((type) => queryObjects(type, { format: "count" }));
}

it("300 streams whose provider stalls all end by the idle timer and leave nothing: no charge, permit, socket or object", async () => {
  // The prototype of a class that extends one of these counts as well.
  const before = living();
  const upstream = await startScriptedUpstream();
  onTestFinished(() => upstream.close());
  const proxy = await startProxy({
    upstreamUrl: upstream.url,
    users: { alice: userFile("alice", alicePassword, `max_parallel = ${streams}\n`) },
    config: "[timeouts]\nidle_seconds = 4\n[rate_limit]\nrequests_per_second = 100000\n[retry]\nattempts = 1\n",
  });
  onTestFinished(() => proxy.dispose());
  const token = await proxy.login();
  const connections = () =>
    new Promise<number>((resolve, reject) => {
      proxy.server.app.server.getConnections((error, count) => {
        if (error === null) resolve(count);
        else reject(error);
      });
    });

  // The login's own, kept alive.
  const atRest = await connections();

  const opening = Array.from({ length: streams }, () =>
    openStream(`${proxy.url}/chat/completions`, {
      headers: { ...bearer(token), connection: "close" },
      body: { model: "m", stream: true, messages: [{ role: "user", content: "hi" }] },
    }),
  );
  const calls = await Promise.all(opening.map(() => upstream.next(30_000)));
  await Promise.all(calls.map((call) => call.delta("one")));
  // From here on only comments: signs of life that are none.
  const comments = setInterval(() => {
    for (const call of calls) if (!call.left) void call.comment().catch(() => undefined);
  }, 200);
  onTestFinished(() => {
    clearInterval(comments);
  });
  const clients = await Promise.all(opening);
  expect(living().every((count, index) => count > (before[index] ?? 0))).toBe(true);
  const endings = await Promise.all(clients.map(async (client) => (await client.rest()).at(-1)?.json?.error?.code));
  expect(endings).toEqual(Array.from({ length: streams }, () => "upstream_timeout"));
  for (const client of clients) expect(client.text).not.toContain("[DONE]");

  await Promise.all(calls.map((call) => call.closed));
  clearInterval(comments);
  await eventually(async () => {
    const { concurrency: permits, gateway: chat, providerAdmin } = proxy.services;
    expect([permits.inFlight(), permits.waiting(), chat.running()]).toEqual([0, 0, 0]);
    expect(providerAdmin.list()[0]?.inFlight).toBe(0);
    expect([upstream.open, await upstream.connections(), await connections()]).toEqual([0, 0, atRest]);
  });
  expect(await usedRequests(proxy, token)).toBe(0);
  await eventually(() => {
    expect(living()).toEqual(before);
  });
}, 120_000);
