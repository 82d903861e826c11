import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { startFaultProxy } from "./fault-proxy.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "./scripted-upstream.ts";
import { openStream } from "./sse-client.ts";

let upstream: ScriptedUpstream;

beforeEach(async () => {
  upstream = await startScriptedUpstream();
});

afterEach(() => upstream.close());

describe("scripted upstream and SSE client", () => {
  test("a call shows the request and the client sees each event when it is sent", async () => {
    const opening = openStream(`${upstream.url}/v1/x?y=1`, { body: { a: "é" }, headers: { "X-One": "1" } });
    const call = await upstream.next();
    expect(call).toMatchObject({ method: "POST", url: "/v1/x?y=1", body: { a: "é" } });
    expect(call.rawHeaders).toContain("X-One");

    call.head(200, { "x-two": "2" });
    const client = await opening;
    expect(client.headers["x-two"]).toBe("2");

    await call.comment();
    expect(await client.nextEvent()).toMatchObject({ comment: "keep-alive", data: undefined });
    await call.event({ n: 1 });
    expect((await client.nextEvent())?.json).toEqual({ n: 1 });
    await call.finish();
    expect((await client.rest()).map((event) => event.data)).toEqual([
      expect.stringContaining('"finish_reason":"stop"'),
      "[DONE]",
    ]);
    expect(await client.ended).toBe("complete");
    expect(call.left).toBe(false);
    expect(upstream.open).toBe(0);
  });

  test("a client that leaves closes the call", async () => {
    const opening = openStream(upstream.url, { body: {} });
    const call = await upstream.next();
    await call.delta("one");
    const client = await opening;
    client.leave();
    await call.closed;
    expect(call.left).toBe(true);
    expect(await client.ended).toBe("aborted");
  });

  test("a reset reaches the client as an aborted answer", async () => {
    const opening = openStream(upstream.url, { body: {} });
    const call = await upstream.next();
    await call.delta("one");
    const client = await opening;
    await client.nextEvent();
    call.reset();
    expect(await client.nextEvent()).toBeUndefined();
    expect(await client.nextEvent()).toBeUndefined();
    expect(await client.ended).toBe("aborted");
  });

  test("a paused client fills the buffers until the upstream cannot send, and gets all of it after resuming", async () => {
    const opening = openStream(upstream.url, { body: {} });
    const call = await upstream.next();
    call.head();
    const client = await opening;
    client.pause();
    const size = 32 << 20;
    let sent = false;
    const sending = call.send("x".repeat(size)).then(() => (sent = true));
    call.end();
    // A whole other exchange fits in here.
    const other = openStream(upstream.url, { body: {} });
    await (await upstream.next()).finish();
    expect(await (await other).ended).toBe("complete");
    expect(sent).toBe(false);
    expect(client.text.length).toBeLessThan(size);
    client.resume();
    await sending;
    expect(await client.ended).toBe("complete");
    expect(client.text).toHaveLength(size);
  });

  test("a client can leave before the headers have come", async () => {
    let leave: (() => void) | undefined;
    const opening = openStream(upstream.url, { body: {}, onSent: (leaveNow) => (leave = leaveNow) });
    const failed = expect(opening).rejects.toThrow();
    const call = await upstream.next();
    leave?.();
    await failed;
    await call.closed;
    expect(call.left).toBe(true);
  });
});

describe("fault proxy", () => {
  test("carries an exchange unchanged, whole or in single bytes", async () => {
    const proxy = await startFaultProxy(upstream.url);
    for (const sliceBytes of [0, 1]) {
      proxy.down.sliceBytes = sliceBytes;
      proxy.up.sliceBytes = sliceBytes;
      const opening = openStream(`${proxy.url}/x`, { body: { text: "héllo" } });
      const call = await upstream.next();
      expect(call.body).toEqual({ text: "héllo" });
      await call.delta("你好");
      await call.finish();
      const client = await opening;
      expect((await client.nextEvent())?.json?.choices[0].delta.content).toBe("你好");
      expect(await client.ended).toBe("complete");
    }
    expect(proxy.accepted).toBe(2);
    await proxy.close();
  });

  test("resets both sides after so many bytes", async () => {
    const proxy = await startFaultProxy(upstream.url);
    proxy.down.resetAfterBytes = 400;
    const opening = openStream(proxy.url, { body: {} });
    const call = await upstream.next();
    await call.delta("one");
    const client = await opening;
    await call.delta("two").catch(() => undefined);
    await call.closed;
    expect(call.left).toBe(true);
    expect(await client.ended).toBe("aborted");
    await proxy.close();
  });

  test("a blackhole lets nothing through until it is lifted", async () => {
    const proxy = await startFaultProxy(upstream.url);
    const opening = openStream(proxy.url, { body: {} });
    const call = await upstream.next();
    call.head();
    const client = await opening;
    proxy.down.blackhole = true;
    await call.delta("one");
    await expect(client.nextEvent(50)).rejects.toThrow("no event");
    proxy.down.blackhole = false;
    expect((await client.nextEvent())?.json?.choices[0].delta.content).toBe("one");
    await proxy.close();
  });
});
