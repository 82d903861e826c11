import { expect, onTestFinished, test } from "vitest";
import { alicePassword, bearer, post, startProxy, userFile, type ProxyOptions } from "../support/start-proxy.ts";
import { chatFinished } from "../support/events.ts";
import { eventually } from "../support/eventually.ts";
import { openStream, type SseClient } from "../support/sse-client.ts";

async function start(options: ProxyOptions = {}) {
  const proxy = await startProxy({
    ...options,
    users: {
      alice: userFile("alice", alicePassword),
      eve: userFile("eve", alicePassword, 'roles = ["auditor"]\n'),
      boss: userFile("boss", alicePassword, 'roles = ["admin"]\n'),
      chief: userFile("chief", alicePassword, 'roles = ["admin"]\n'),
    },
  });
  onTestFinished(() => proxy.dispose());
  const boss = await proxy.login("boss");
  return {
    proxy,
    boss,
    /** Follows the events as boss. */
    async follow(query = "", headers: Readonly<Record<string, string>> = {}, token = boss): Promise<SseClient> {
      const client = await openStream(`${proxy.url}/admin/events${query}`, {
        headers: { ...bearer(token), ...headers },
      });
      onTestFinished(() => {
        client.leave();
      });
      expect(client.status).toBe(200);
      expect(await client.nextEvent()).toMatchObject({ comment: "connected" });
      return client;
    },
    emit: (traceId: string, user = "alice", group = "") => {
      proxy.services.emit(chatFinished({ traceId, user, group }));
    },
  };
}

/** The next event's envelope and id, comments apart. */
async function nextOf(client: SseClient) {
  for (;;) {
    const event = await client.nextEvent();
    if (event === undefined) throw new Error("the stream is over");
    if (event.data === undefined) continue;
    const id = /^id: (\S+)$/m.exec(event.raw)?.[1] ?? "";
    return { id, type: event.event, envelope: JSON.parse(event.data) as Record<string, unknown> };
  }
}

test("events come as they happen, to administrators and auditors, with the envelope and its id", async () => {
  const { proxy, follow } = await start();
  const client = await follow("?types=login.*,chat.finished&user=alice");
  expect(client.headers).toMatchObject({
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store, no-transform",
  });
  const auditor = await follow("?types=login.succeeded", {}, await proxy.login("eve"));
  const token = await proxy.login("alice");
  const answer = await post(
    `${proxy.url}/chat/completions`,
    { model: "deepseek-flash", messages: [{ role: "user", content: "hello" }] },
    bearer(token),
  );
  await answer.text();
  const login = await nextOf(client);
  expect(login).toMatchObject({
    type: "login.succeeded",
    envelope: { id: login.id, user: "alice", version: 1, group: null, data: {} },
  });
  expect((await nextOf(client)).envelope).toMatchObject({
    type: "chat.finished",
    request_id: answer.headers.get("x-request-id"),
    data: { code: "ok" },
  });
  expect((await nextOf(auditor)).envelope).toMatchObject({ user: "alice" });
  expect((await fetch(`${proxy.url}/admin/events`, { headers: bearer(token) })).status).toBe(403);
  expect((await fetch(`${proxy.url}/admin/events`, { method: "HEAD", headers: bearer(token) })).status).toBe(405);
});

test("filters by group and request, and refuses types that do not exist", async () => {
  const { proxy, boss, follow, emit } = await start();
  const byGroup = await follow("?group=lab");
  const byRequest = await follow("?request_id=request-7&types=chat.finished&types=login.failed");
  for (let at = 1; at < 10; at++) emit(`request-${at}`, "alice", at === 3 ? "lab" : "");
  expect((await nextOf(byGroup)).envelope).toMatchObject({ request_id: "request-3" });
  expect((await nextOf(byRequest)).envelope).toMatchObject({ request_id: "request-7" });
  const refused = await fetch(`${proxy.url}/admin/events?types=chat.*,chat.begun`, { headers: bearer(boss) });
  expect(refused.status).toBe(400);
  const { error } = (await refused.json()) as { error: { param: string; message: string } };
  expect(error.param).toBe("types");
  expect(error.message).toMatch(/expected types of events, such as chat\.finished, .*; got "chat\.begun"/);
});

test("a reader that comes back goes on where it was, or is told that it can't", async () => {
  const { follow, emit } = await start({ config: "[events]\nring_size = 20\n" });
  const first = await follow("?types=chat.finished");
  emit("one");
  const { id } = await nextOf(first);
  first.leave();
  emit("two");
  emit("three");
  const second = await follow("?types=chat.finished&last_event_id=unknown", { "last-event-id": id });
  expect((await nextOf(second)).envelope).toMatchObject({ request_id: "two" });
  expect((await nextOf(second)).envelope).toMatchObject({ request_id: "three" });
  for (let at = 0; at < 30; at++) emit(`more-${at}`);
  const third = await follow(`?types=chat.finished&last_event_id=${id}`);
  expect(await nextOf(third)).toMatchObject({ type: "gap", id: "", envelope: { missed: "unknown" } });
  expect((await nextOf(third)).envelope).toMatchObject({ type: "chat.finished" });
});

test("a stream says where it begins, so that a reader who is cut off before the first event misses none", async () => {
  const { proxy, boss, follow, emit } = await start();
  const first = await openStream(`${proxy.url}/admin/events?user=alice`, { headers: bearer(boss) });
  const opening = await first.nextEvent();
  const place = /^id: (\S+)$/m.exec(opening?.raw ?? "")?.[1] ?? "";
  expect(opening?.data).toBeUndefined();
  first.leave();
  emit("meanwhile");
  const second = await follow("?types=chat.finished", { "last-event-id": place });
  expect((await nextOf(second)).envelope).toMatchObject({ request_id: "meanwhile" });
});

test("a reader that stops reading holds a bounded part of it, and learns how much it missed", async () => {
  const { proxy, follow } = await start({ config: "[events]\nring_size = 50\n" });
  const client = await follow("?types=admin.changed");
  client.pause();
  const total = 2000;
  const change = { type: "admin.changed", action: "user.changed", by: "boss", user: "alice", subject: "" } as const;
  // More than the sockets of both sides hold.
  const after = { text: "x".repeat(6000) };
  for (let at = 0; at < total; at++) {
    proxy.services.emit({ ...change, at, traceId: `request-${at}`, ip: "", before: null, after, reason: "" });
    // Lets the socket take what it can.
    if (at % 100 === 0) await new Promise(setImmediate);
  }
  client.resume();
  let seen = 0;
  let missed = 0;
  for (let last = ""; last !== `request-${total - 1}`;) {
    const { type, envelope } = await nextOf(client);
    if (type === "gap") missed += Number(envelope.missed);
    else {
      seen += 1;
      last = String(envelope.request_id);
    }
  }
  expect(missed).toBeGreaterThan(0);
  expect(seen + missed).toBe(total);
  expect(proxy.services.eventFeed.stats()).toMatchObject({ readers: 1, dropped: missed });
});

test("a stream ends when its session ends, when its reader is no administrator any more, and when the proxy stops", async () => {
  const { proxy, boss, follow } = await start();
  const chief = await proxy.login("chief");
  const session = await follow("", {}, chief);
  const demoted = await follow("", {}, await proxy.login("eve"));
  const stopped = await follow();
  expect((await post(`${proxy.url}/auth/logout-all`, {}, bearer(chief))).status).toBe(204);
  expect(await session.ended).toBe("complete");
  const change = await fetch(`${proxy.url}/admin/users/eve`, {
    method: "PATCH",
    headers: { ...bearer(boss), "content-type": "application/json" },
    body: JSON.stringify({ roles: ["user"] }),
  });
  expect(change.status).toBe(200);
  expect(await demoted.ended).toBe("complete");
  await eventually(() => {
    expect(proxy.services.eventFeed.stats().readers).toBe(1);
  });
  await proxy.stop();
  expect(await stopped.ended).toBe("complete");
  expect(proxy.services.eventFeed.stats().readers).toBe(0);
});

test("there may be so many streams, and their places are free again when readers leave", async () => {
  const { proxy, boss, follow } = await start({ config: "[events]\nmax_streams = 2\n" });
  const first = await follow();
  await follow();
  const refused = await fetch(`${proxy.url}/admin/events`, { headers: bearer(boss) });
  expect(refused.status).toBe(503);
  expect(refused.headers.get("retry-after")).toBe("15");
  first.leave();
  await eventually(() => {
    expect(proxy.services.eventFeed.stats().readers).toBe(1);
  });
  await follow();
});

test("whatever a request with a traceparent causes has its trace id, also where no chat is involved", async () => {
  const { proxy, boss, follow } = await start();
  const client = await follow("?types=login.*,session.*,api_key.*,password.*,admin.*,request.finished&user=alice");
  const traceId = "0af7651916cd43dd8448eb211c80319c";
  const traced = { traceparent: `00-${traceId}-b7ad6b7169203331-01` };
  const call = async (path: string, body: object, headers: Readonly<Record<string, string>>) => {
    const answer = await post(`${proxy.url}${path}`, body, headers);
    const text = await answer.text();
    return text === "" ? {} : (JSON.parse(text) as Record<string, string>);
  };
  await call("/auth/login", { username: "alice", password: "wrong" }, traced);
  const tokens = await call("/auth/login", { username: "alice", password: alicePassword }, traced);
  const own = bearer(tokens.token ?? "");
  await call("/auth/keys", { name: "key" }, { ...own, ...traced });
  await call("/admin/users/alice/keys", { name: "another" }, { ...bearer(boss), ...traced });
  await call("/auth/logout", { refresh_token: tokens.refresh_token }, traced);
  await proxy.login("alice");
  const seen: [unknown, unknown][] = [];
  while (seen.length < 7) {
    const { type, envelope } = await nextOf(client);
    seen.push([type, envelope.trace_id]);
  }
  expect(seen).toEqual([
    ["login.failed", traceId],
    ["login.succeeded", traceId],
    ["api_key.created", traceId],
    ["api_key.created", traceId],
    ["admin.changed", traceId],
    ["session.ended", traceId],
    ["login.succeeded", null],
  ]);
  await eventually(() => {
    expect(proxy.services.runningTraces.size).toBe(0);
  });
});
