import { beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { rawRequest, sendRaw } from "../support/raw-http.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";
import { bearer, startProxy, type RunningProxy } from "../support/start-proxy.ts";

const body = JSON.stringify({ model: "m", stream: true, messages: [{ role: "user", content: "hi" }] });
const chunk = (content: string, finish_reason: string | null = null): string =>
  `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content }, finish_reason }] })}\n\n`;
/** Around the sizes at which something else makes the chunk: the proxy of small ones, Node of large ones. */
const sizes = [1, 15, 16, 255, 256, 2047, 2048, 2049, 4095, 4096, 4097, 70_000, 1];
const events = sizes.map((size) => chunk("x".repeat(Math.max(0, size - chunk("").length))));

describe("the bytes of a stream", () => {
  let upstream: ScriptedUpstream;
  let proxy: RunningProxy;
  let authorization: string;

  beforeEach(async () => {
    upstream = await startScriptedUpstream();
    onTestFinished(() => upstream.close());
    proxy = await startProxy({ upstreamUrl: upstream.url, config: "[timeouts]\nheartbeat_seconds = 0.05\n" });
    onTestFinished(() => proxy.dispose());
    authorization = `Authorization: ${bearer(await proxy.login()).authorization}`;
  });

  /** Sends the request, answers it event by event, and returns head and body as they came over the socket. */
  async function ask(request: string, answer: readonly string[]) {
    const connection = sendRaw(proxy.url, request);
    onTestFinished(() => {
      connection.socket.destroy();
    });
    const call = await upstream.next();
    for (const event of answer) await call.send(event);
    call.end();
    await connection.closed;
    const [head = "", ...rest] = connection.received().split("\r\n\r\n");
    return { head: head.toLowerCase(), body: rest.join("\r\n\r\n") };
  }

  const headers = (): string[] => [authorization, "Content-Type: application/json", "Connection: close"];

  it("are chunks of HTTP/1.1, whatever the size of an event", async () => {
    const request = rawRequest("POST /chat/completions", headers(), body);
    const answer = await ask(request, [...events, chunk("", "stop"), "data: [DONE]\n\n"]);
    expect(answer.head).toContain("transfer-encoding: chunked");
    expect(withoutHeartbeats(unchunk(answer.body))).toBe(`${events.join("")}${chunk("", "stop")}data: [DONE]\n\n`);
  });

  it("are chunks up to an error at the end", async () => {
    const request = rawRequest("POST /chat/completions", headers(), body);
    const answer = await ask(request, events);
    const text = withoutHeartbeats(unchunk(answer.body));
    expect(text.startsWith(events.join(""))).toBe(true);
    expect(text.slice(events.join("").length)).toMatch(/^data: \{"error":.*upstream_truncated.*\}\n\n$/);
  });

  it("are no chunks for a client of HTTP/1.0, which knows none", async () => {
    const request = rawRequest("POST /chat/completions", headers(), body).replace("HTTP/1.1", "HTTP/1.0");
    const answer = await ask(request, [...events, chunk("", "stop")]);
    expect(answer.head).not.toContain("transfer-encoding");
    expect(withoutHeartbeats(answer.body)).toBe(`${events.join("")}${chunk("", "stop")}data: [DONE]\n\n`);
  });
});

function withoutHeartbeats(text: string): string {
  return text.replaceAll(": keep-alive\n\n", "");
}

/** Takes the chunked transfer coding off (RFC 9112, 7.1). Throws where it is not exactly that. */
function unchunk(coded: string): string {
  let text = "";
  let at = 0;
  for (;;) {
    const [line, digits] = /^([0-9a-f]+)\r\n/.exec(coded.slice(at, at + 20)) ?? [];
    if (line === undefined || digits === undefined) throw new Error(`no chunk size at ${at}`);
    const size = parseInt(digits, 16);
    const start = at + line.length;
    at = start + size + 2;
    if (coded.slice(start + size, at) !== "\r\n") throw new Error(`no line end behind the chunk at ${start}`);
    if (size === 0) {
      if (at !== coded.length) throw new Error("bytes behind the last chunk");
      return text;
    }
    text += coded.slice(start, start + size);
  }
}
