import type { Socket } from "node:net";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, it, onTestFinished } from "vitest";
import { createReader } from "../../src/providers/stream/response-body.ts";
import { ErrorResponse } from "../../src/providers/stream/error-response.ts";
import { createModelList } from "../../src/providers/model-list.ts";
import { bearer, startProxy } from "../support/start-proxy.ts";
import { eventually } from "../support/eventually.ts";
import { testProvider } from "../support/provider.ts";
import { sendRaw } from "../support/raw-http.ts";
import { startScriptedUpstream } from "../support/scripted-upstream.ts";

setFlagsFromString("--expose-gc");
const gc = runInNewContext("gc") as () => void;
const pieces = 300_000;

/** Bytes of the heap that are in use, and of buffers. */
function inUse(): number {
  gc();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

describe("C5: bytes that come in tiny pieces", () => {
  it("take no more than a few times their size of a client's body", async () => {
    const proxy = await startProxy();
    onTestFinished(() => proxy.dispose());
    const { authorization } = bearer(await proxy.login());
    const accepted: Socket[] = [];
    proxy.server.app.server.on("connection", (socket: Socket) => accepted.push(socket));
    const head = ["POST /v1/chat/completions HTTP/1.1", "Host: x", "Content-Type: application/json"];
    const connection = sendRaw(
      proxy.url,
      [...head, `Authorization: ${authorization}`, "Transfer-Encoding: chunked", "", ""].join("\r\n"),
    );
    onTestFinished(() => void connection.socket.destroy());
    const arrived = () =>
      eventually(() => {
        expect(accepted[0]?.bytesRead).toBe(connection.socket.bytesWritten);
      }, 40_000);
    await arrived();
    const before = inUse();
    const block = Buffer.from("1\r\n \r\n".repeat(pieces / 100));
    for (let i = 0; i < 100; i++) await new Promise((resolve) => connection.socket.write(block, resolve));
    await arrived();
    expect(inUse() - before).toBeLessThan(10 << 20);
    connection.socket.write('1a\r\n{"model":"m","messages":0}\r\n0\r\n\r\n');
    expect((await connection.answer()).body).toContain("messages must be");
  });

  it("take no more of an upstream's JSON, or of its error", () => {
    const provider = testProvider("a");
    const sink = { onEvent: () => undefined, onBatch: () => undefined, onEnd: () => undefined };
    const reader = createReader("embeddings", true, provider, sink);
    const error = new ErrorResponse(provider, "m", 500, {});
    const before = inUse();
    for (let i = 0; i < pieces; i++) reader.push(Buffer.from(" "));
    for (let i = 0; i < 60_000; i++) error.push(Buffer.from(" "));
    expect(inUse() - before).toBeLessThan(10 << 20);
    reader.push(Buffer.from('{"data":[]}'));
    expect(reader.end()).toBeNull();
    expect(error.push(Buffer.alloc(10_000))).toBe(false);
  });
});

describe("C5: a provider's list of models", () => {
  it("is read up to a bound; a longer one is none", async () => {
    const upstream = await startScriptedUpstream();
    onTestFinished(() => upstream.close());
    const provider = testProvider("a", { baseUrl: upstream.url });
    onTestFinished(() => provider.dispatcher.destroy());
    const clock = { now: () => 0, monotonic: () => 0 };
    const reachability = createModelList({ providers: [provider], aliases: {}, clock }).reachability();
    const call = await upstream.next();
    call.head(200, { "content-type": "application/json" });
    const block = " ".repeat(1 << 20);
    let sent = 0;
    const state = { isClosed: false };
    const closed = (): void => {
      state.isClosed = true;
    };
    while (sent < 64 && !state.isClosed) {
      sent++;
      await Promise.race([call.send(block).catch(closed), call.closed.then(closed)]);
    }
    expect(sent).toBeLessThan(40);
    expect(await reachability).toMatchObject([{ ok: false }]);
  });
});
