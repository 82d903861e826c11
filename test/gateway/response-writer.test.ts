import { EventEmitter } from "node:events";
import type { ServerResponse } from "node:http";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { ApiFormat } from "../../src/gateway/formats/api-format.ts";
import { ResponseWriter } from "../../src/gateway/response-writer.ts";
import { chatCompletions } from "../../src/gateway/formats/chat-completions.ts";
import { messages } from "../../src/gateway/formats/messages.ts";
import { AppError } from "../../src/errors.ts";

const own = { heartbeat: 1000, stalledReader: 5000 };

/** A client whose response only remembers what was written; time stands still until it is moved. */
function open(shape: ApiFormat = chatCompletions) {
  const written: string[] = [];
  const raw = Object.assign(new EventEmitter(), {
    destroyed: false,
    writableFinished: false,
    writableNeedDrain: false,
    writableLength: 0,
    behind: false,
    writeHead: () => undefined,
    write(bytes: Buffer) {
      written.push(bytes.toString());
      return !raw.behind;
    },
    end(bytes: Buffer | string) {
      written.push(bytes.toString());
    },
    destroy: () => undefined,
  });
  const reply = { hijack: () => undefined, raw: raw as unknown as ServerResponse };
  const clock = { now: () => Date.now(), monotonic: () => performance.now() };
  const client = new ResponseWriter(reply, "trace", shape, own, clock);
  return { client, raw, written, stream: shape.startStream("m", 0) };
}

const headers = { addHeaders: () => undefined };
const nobody = { onDrain: () => undefined };

describe("a client", () => {
  beforeEach(() => vi.useFakeTimers());
  afterEach(() => vi.useRealTimers());

  it("gets a sign of life after each time of silence, and none while events come", () => {
    const { client, written, stream } = open();
    client.startHeartbeat(headers, stream);
    vi.advanceTimersByTime(2500);
    expect(written).toEqual([": keep-alive\n\n", ": keep-alive\n\n"]);
    for (let i = 0; i < 10; i++) {
      client.write(Buffer.from("event"), nobody);
      vi.advanceTimersByTime(900);
    }
    expect(written.slice(2)).toEqual(Array.from({ length: 10 }, () => "event"));
  });

  it("gets it by the times of the provider that is asked, counted from the last write on", () => {
    const { client, written, stream } = open();
    client.startHeartbeat(headers, stream);
    vi.advanceTimersByTime(500);
    client.useTimes({ heartbeat: 600, stalledReader: 1 });
    vi.advanceTimersByTime(99);
    expect(written).toHaveLength(0);
    vi.advanceTimersByTime(1);
    expect(written).toHaveLength(1);
    client.useTimes({ heartbeat: 60_000, stalledReader: 1 });
    vi.advanceTimersByTime(50_000);
    expect(written).toHaveLength(1);
    client.useTimes(null);
    vi.advanceTimersByTime(1);
    expect(written).toHaveLength(2);
  });

  it("gets none unless it is to have one, whoever is asked", () => {
    const { client, written } = open();
    client.useTimes({ heartbeat: 1, stalledReader: 1 });
    vi.advanceTimersByTime(10_000);
    expect(written).toEqual([]);
  });

  it("keeps no timer once it is gone or answered, whoever is asked then", () => {
    const gone = open();
    gone.client.startHeartbeat(headers, gone.stream);
    gone.raw.emit("close");
    gone.client.useTimes({ heartbeat: 1, stalledReader: 1 });
    const answered = open();
    answered.client.startHeartbeat(headers, answered.stream);
    answered.client.finish(null);
    answered.client.useTimes({ heartbeat: 1, stalledReader: 1 });
    expect(vi.getTimerCount()).toBe(0);
  });

  it("may stop reading for as long as the provider's times say", () => {
    const { client, raw } = open();
    client.useTimes({ heartbeat: 1000, stalledReader: 200 });
    raw.behind = true;
    expect(client.write(Buffer.from("event"), nobody)).toBe(false);
    vi.advanceTimersByTime(199);
    expect(client.disconnectReason).toBeNull();
    vi.advanceTimersByTime(1);
    expect(client.disconnectReason).toBe("reader_stalled");
  });

  it("is told of the end, of an error and of life in the words of its API", () => {
    const { client, written, stream } = open(messages);
    client.startHeartbeat(headers, stream);
    vi.advanceTimersByTime(1000);
    client.finish(null);
    client.finish(new AppError("upstream_truncated"));
    expect(written.slice(0, 2)).toEqual([
      'event: ping\ndata: {"type":"ping"}\n\n',
      'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    ]);
    expect(written[2]).toMatch(/^event: error\ndata: \{"type":"error","error":\{.*"request_id":"trace"\}\n\n$/);
  });
});
