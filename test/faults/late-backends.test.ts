import { describe, expect, it, onTestFinished } from "vitest";
import { ask, jsonOf, logIn } from "../support/accounts.ts";
import { delayedBackends, failingBackends, slowBackends } from "../support/backends.ts";
import { chatBody, nothing, priced, startBilledProxy } from "../support/billed-proxy.ts";
import { eventually } from "../support/eventually.ts";
import { alicePassword, bearer, post, startProxy, userFile } from "../support/start-proxy.ts";
import type { SseEvent } from "../support/sse-client.ts";

const chunk = (content: string): string =>
  `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content } }] })}\n\n`;
const usage = { prompt_tokens: 10, completion_tokens: 600, total_tokens: 610 };
const held = Math.ceil(JSON.stringify(chatBody(true)).length / 2) + 10;
const numbers = Array.from({ length: 600 }, (_, index) => `${index} `);

function textOf(events: readonly SseEvent[]): string {
  const chunks = events.flatMap(({ json }) => (json !== undefined && "choices" in json ? [json] : []));
  return chunks.map(({ choices }) => choices[0].delta.content ?? "").join("");
}

describe("M11: with a ledger that answers 3 ms later", () => {
  it.each([
    ["one by one", 1],
    ["in a few reads", 100],
    ["all at once", 600],
  ])("no event passes beyond the limit: %s", async (_, atOnce) => {
    const room = 100;
    const billed = await startBilledProxy({ maxTokens: held + room, backends: delayedBackends });
    const opening = billed.open();
    const call = await billed.upstream.next();
    for (let sent = 0; sent < numbers.length; sent += atOnce) {
      const pieces = numbers.slice(sent, sent + atOnce).map(chunk);
      await Promise.race([call.send(pieces.join("")).catch(() => undefined), call.closed]);
    }
    const events = await (await opening).rest();
    expect(events.at(-1)?.json?.error).toMatchObject({ code: "quota_exceeded_midstream" });
    expect(textOf(events)).toBe(numbers.slice(0, 10 + room).join(""));
    await eventually(async () => {
      expect((await billed.used())[1]).toBeLessThanOrEqual(held + room);
    });
  });

  it.each([
    ["one by one", 1],
    ["all at once", 600],
  ])("an answer arrives whole and in order: %s", async (_, atOnce) => {
    const billed = await startBilledProxy({ backends: delayedBackends });
    const opening = billed.open();
    const call = await billed.upstream.next();
    for (let sent = 0; sent < numbers.length; sent += atOnce) {
      await call.send(
        numbers
          .slice(sent, sent + atOnce)
          .map(chunk)
          .join(""),
      );
    }
    await call.finish(usage);
    const events = await (await opening).rest();
    expect(textOf(events)).toBe(numbers.join(""));
    expect(events.at(-1)?.data).toBe("[DONE]");
    expect(await billed.used()).toEqual(priced(10, 600));
  });

  it("one JSON has all of it", async () => {
    const billed = await startBilledProxy({ backends: delayedBackends });
    const asking = billed.collect();
    const call = await billed.upstream.next();
    await call.send(numbers.map(chunk).join(""));
    await call.finish(usage);
    expect(await (await asking).json()).toMatchObject({ choices: [{ message: { content: numbers.join("") } }] });
    expect(await billed.used()).toEqual(priced(10, 600));
  });

  it("a client that leaves while the ledger is asked leaves nothing behind", async () => {
    let asked = (): void => undefined;
    const waits = new Promise<void>((resolve) => (asked = resolve));
    let answer = (): void => undefined;
    const answered = new Promise<void>((resolve) => (answer = resolve));
    const billed = await startBilledProxy({
      config: '[abort]\npolicy = "cancel"\n',
      backends: (own) =>
        slowBackends(own, async (call) => {
          if (call !== "grow") return;
          asked();
          await answered;
        }),
    });
    const opening = billed.open();
    const call = await billed.upstream.next();
    await call.send(numbers.map(chunk).join(""));
    const client = await opening;
    await waits;
    client.leave();
    expect(await billed.logged()).toMatchObject({ outcome: "client_gone", estimated: true });
    answer();
    await call.closed;
    await eventually(async () => {
      expect((await billed.used())[0]).toBe(2);
    });
  });
});

describe("M11: a backend that fails is storage_unavailable for this request, and nothing more", () => {
  it.each<string>(["take", "acquire", "reserve", "commit"])("at %s: 503", async (failing) => {
    const billed = await startBilledProxy({ backends: (own) => failingBackends(own, failing) });
    const asking = billed.collect();
    if (failing === "commit") await (await billed.upstream.next()).delta("one");
    const answer = await asking;
    expect(answer.status).toBe(503);
    expect(answer.headers.get("retry-after")).toBe("1");
    expect(await answer.json()).toMatchObject({ error: { code: "storage_unavailable" } });
    expect(await billed.used()).toEqual(nothing);
    expect(await billed.logged()).toMatchObject({ outcome: "refused", code: "storage_unavailable" });
    expect(billed.proxy.logLines.join("")).toContain("the connection is lost");
  });

  it.each([
    ["a stream", true],
    ["one JSON", false],
  ])("at grow, in the middle of %s", async (_, stream) => {
    const billed = await startBilledProxy({ backends: (own) => failingBackends(own, "grow") });
    const asking = billed.ask("/v1/chat/completions", chatBody(stream));
    const call = await billed.upstream.next();
    await call.send(numbers.map(chunk).join(""));
    const client = await asking;
    const events = await client.rest();
    await client.ended;
    expect(client.status).toBe(stream ? 200 : 503);
    expect(client.text).toContain('"code":"storage_unavailable"');
    if (stream) expect(textOf(events)).toBe(numbers.slice(0, 10).join(""));
    await call.closed;
    expect(await billed.used()).toEqual(nothing);
  });

  it("at settle: the answer is whole, and everything but the charge is given back", async () => {
    const billed = await startBilledProxy({ backends: (own) => failingBackends(own, "settle") });
    for (let round = 0; round < 2; round++) {
      const asking = billed.collect();
      const call = await billed.upstream.next();
      await call.delta("one");
      await call.finish();
      expect((await asking).status).toBe(200);
    }
    expect(billed.proxy.services.concurrency.inFlight()).toBe(0);
    expect(billed.proxy.logLines.join("")).toContain("a charge was not settled");
  });

  it.each([
    ["buckets", "/auth/quota"],
    ["usage", "/auth/usage"],
  ] as const)("at %s", async (failing, path) => {
    const billed = await startBilledProxy({ backends: (own) => failingBackends(own, failing) });
    const answer = await fetch(billed.proxy.url + path, { headers: bearer(await billed.proxy.login()) });
    expect(answer.status).toBe(503);
    expect(await answer.json()).toMatchObject({ error: { code: "storage_unavailable" } });
  });
});

describe("a port of identity that fails is storage_unavailable for this request, and nothing more", () => {
  const users = {
    alice: userFile("alice", alicePassword),
    root: userFile("root", alicePassword, 'roles = ["user", "admin"]\n'),
  };

  it("at every route that needs it, and the same request works again afterwards", async () => {
    let failing = "";
    const proxy = await startProxy({
      users,
      config: '[admin]\nallow = ["127.0.0.1"]\n',
      backends: (own) =>
        slowBackends(own, (call) =>
          call === failing ? Promise.reject(new Error("the connection is lost")) : Promise.resolve(),
        ),
    });
    onTestFinished(() => proxy.dispose());
    const alice = await logIn(proxy, "alice", alicePassword);
    const root = await logIn(proxy, "root", alicePassword);
    const { body: made } = await jsonOf<{ id: string; key: string; signing_secret: string }>(
      post(`${proxy.url}/auth/keys`, { name: "x" }, bearer(alice.token)),
    );
    const log = { username: "alice", password: alicePassword };
    let client = 0;
    const login = () => jsonOf(post(`${proxy.url}/auth/login`, log, { "user-agent": `client ${++client}` }));
    const get = (path: string, credential: string) => () => ask(proxy, `GET ${path}`, credential);
    const change = (route: string, body: object, token: string) => () => {
      const [method = "", path = ""] = route.split(" ");
      const headers = { "content-type": "application/json", ...bearer(token) };
      return jsonOf(fetch(`${proxy.url}${path}`, { method, headers, body: JSON.stringify(body) }));
    };
    const calls: readonly (readonly [string, () => Promise<{ readonly status: number; readonly body: object }>])[] = [
      ["get", login],
      ["check", login],
      ["start", login],
      ["succeeded", login],
      ["open", login],
      ["isLive", get("/auth/quota", alice.token)],
      ["get", get("/auth/quota", alice.token)],
      ["find", get("/auth/quota", made.key)],
      ["list", get("/auth/sessions", alice.token)],
      ["list", get("/auth/keys", alice.token)],
      ["create", change("POST /auth/keys", { name: "y" }, alice.token)],
      ["buckets", get("/admin/users/alice/quota", root.token)],
      ["usageOfAll", get("/admin/usage?by=user", root.token)],
      ["search", get("/admin/users", root.token)],
      ["locked", get("/admin/login-locks", root.token)],
      ["unlock", change("POST /admin/users/alice/unlock", {}, root.token)],
      ["update", change("PATCH /admin/users/alice", { max_parallel: 3 }, root.token)],
      ["list", get("/admin/users/alice/sessions", root.token)],
      ["refresh", change("POST /auth/refresh", { refresh_token: root.refresh_token }, "")],
      ["endByToken", change("POST /auth/logout", { refresh_token: root.refresh_token }, "")],
      ["endAll", change("POST /auth/logout-all", {}, alice.token)],
    ];
    for (const [verb, call] of calls) {
      failing = verb;
      const failed = await call();
      const shown = `${verb}: ${JSON.stringify(failed.body)}`;
      expect(failed.status, shown).toBe(503);
      expect(failed.body, shown).toMatchObject({ error: { code: "storage_unavailable" } });
      failing = "";
      expect((await call()).status, verb).toBeLessThan(300);
    }
  });

  it("but what has been done is done where only its end could not be told: a permit lapses, a chat is answered", async () => {
    const billed = await startBilledProxy({ backends: (own) => failingBackends(own, "release") });
    const asking = billed.collect();
    const call = await billed.upstream.next();
    await call.delta("one");
    await call.finish();
    expect((await asking).status).toBe(200);
    expect(billed.proxy.logLines.join("")).toContain("a permit was not released");
  });
});
