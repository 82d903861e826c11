import { describe, expect, it } from "vitest";
import { SseScanner } from "../../src/lib/sse-scanner.ts";
import { startBilledProxy } from "../support/billed-proxy.ts";
import { eventually } from "../support/eventually.ts";

const chunk = (content: string, finish_reason: string | null = null): string =>
  `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content }, finish_reason }] })}\n\n`;

describe("A8: a heartbeat", () => {
  it.each([
    ["a comment and no blank line once an id was passed on", "id: 4\n", ": keep-alive\n"],
    ["the same where the id is empty", "id\n", ": keep-alive\n"],
    ["a comment with its blank line where none was", "event: x\n", ": keep-alive\n\n"],
  ])("is %s", async (_, field, heartbeat) => {
    const { ask, upstream } = await startBilledProxy({ config: "[timeouts]\nheartbeat_seconds = 0.1\n" });
    const messages = [{ role: "user", content: "hi" }];
    const asking = ask("/chat/completions", { model: "flash", stream: true, messages });
    const call = await upstream.next();
    await call.send(field + chunk("one"));
    const client = await asking;
    const first = field + chunk("one");
    await eventually(() => {
      expect(client.text.slice(first.length)).toContain(heartbeat.repeat(2));
    });
    await call.send(`${field}${chunk("two", "stop")}data: [DONE]\n\n`);
    call.end();
    await client.ended;
    expect(client.text.replaceAll(heartbeat, "")).toBe(`${first}${field}${chunk("two", "stop")}data: [DONE]\n\n`);
  });
});

describe("A8: an event with an id is one", () => {
  const idsIn = (text: string): boolean => {
    const scanner = new SseScanner({ onEvent: () => undefined, onComment: () => undefined }, 1000);
    for (const byte of Buffer.from(text)) scanner.push(Buffer.from([byte]));
    return scanner.idsSeen;
  };

  it.each(["id: 4\ndata: a\n\n", "data: a\nid:4\n\n", "id\r\ndata: a\r\n\r\n", "\uFEFFid: 1\ndata: a\n\n"])(
    "%j",
    (text) => {
      expect(idsIn(text)).toBe(true);
    },
  );

  it.each(["id: 4\n\n", "data: id: 4\n\n", "idea: 4\ndata: a\n\n", ": id: 4\ndata: a\n\n"])("and not %j", (text) => {
    expect(idsIn(text)).toBe(false);
  });
});
