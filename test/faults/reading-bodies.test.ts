import { randomBytes } from "node:crypto";
import { brotliCompressSync, constants, deflateRawSync, deflateSync, gzipSync } from "node:zlib";
import { anyText, fc } from "../support/fast-check.ts";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import { systemClock } from "../../src/lib/clock.ts";
import type { UpstreamError } from "../../src/providers/upstream-error.ts";
import { ResponseBody } from "../../src/providers/stream/response-body.ts";
import { codingsIn } from "../../src/lib/content-codings.ts";
import { isDecodable } from "../../src/providers/stream/body-decoder.ts";
import { readRetryAfter } from "../../src/lib/retry-after.ts";
import { createModelList } from "../../src/providers/model-list.ts";
import { closeAll, open, serve } from "../support/failover.ts";
import { closeRawProviders, outcomeOf, readFrom, sending, startRawProvider } from "../support/raw-provider.ts";
import { testProvider } from "../support/provider.ts";
import { event } from "../support/read-response.ts";

const usage = { prompt_tokens: 5, completion_tokens: 1 };
const delta = (content: string, finish_reason: string | null = null, rest: object = {}): string =>
  event({ choices: [{ index: 0, delta: { content }, finish_reason }], ...rest });
const answer = [delta("Hello "), delta("你好"), delta("", "stop", { usage }), "data: [DONE]\n\n"].join("");
const whole = JSON.stringify({
  id: "c",
  object: "chat.completion",
  model: "m",
  choices: [{ index: 0, message: { role: "assistant", content: "Hello" }, finish_reason: "stop" }],
  usage,
});

/** Of a body that goes on. */
const flushed = { finishFlush: constants.Z_SYNC_FLUSH };

type Headers = Readonly<Record<string, string>>;

afterAll(closeRawProviders);

describe.concurrent("A5: a stream is read as one under the content type", () => {
  it.each([
    "text/event-stream",
    "Text/Event-Stream",
    "TEXT/EVENT-STREAM ; charset=utf-8",
    "text/event-stream;x=y;z",
    "text/plain",
    "Text/Plain; charset=UTF-8",
    "application/octet-stream",
    "application/json",
    "",
  ])("%j", async (type) => {
    for (const body of [answer, `\n\n${answer}`, `: keep-alive\n\n${answer}`, `\uFEFF${answer}`, `id: 1\n${answer}`]) {
      const { fault, seen } = await outcomeOf(sending(body, type === "" ? {} : { "Content-Type": type }));
      expect(fault).toBeNull();
      expect(seen).toContain("你好");
    }
  });

  it.each(["text/plain", "application/octet-stream"])("%j only where it plainly is one", async (type) => {
    for (const body of ["<html>data: no</html>", "database is down", "Internal error\n\ndata: x\n\n"]) {
      const { fault } = await outcomeOf(sending(body, { "Content-Type": type }));
      expect(fault?.facts).toMatchObject({ kind: "invalid_response", isPermanent: true });
    }
  });
});

describe("A5: headers are compared without regard to case", () => {
  const at = Date.parse("Wed, 21 Oct 2026 07:28:00 GMT");

  it.each(["Wed, 21 Oct 2026 07:28:30 GMT", "wed, 21 oct 2026 07:28:30 gmt", "WED, 21 OCT 2026 07:28:30 GMT"])(
    "a Retry-After of %s",
    (date) => {
      expect(readRetryAfter({ "retry-after": date }, at)).toBe(30_000);
    },
  );

  it.each(["gzip", "GZIP", " GZip ", "x-GZip", "Identity, BR", "deflate", "IDENTITY", ""])(
    "a coding of %j",
    (coding) => {
      expect(isDecodable(codingsIn(coding))).toBe(true);
    },
  );

  it.each(["compress", "exi", "gzip, br", "aes128gcm"])("and a coding of %j is none", (coding) => {
    expect(isDecodable(codingsIn(coding))).toBe(false);
  });
});

const codings: readonly (readonly [string, (body: string | Buffer) => Buffer])[] = [
  ["gzip", gzipSync],
  ["X-GZIP", gzipSync],
  ["deflate", deflateSync],
  ["deflate", deflateRawSync],
  ["br", brotliCompressSync],
];

describe.concurrent("A9: a body in a coding that nobody asked for", () => {
  it.each(codings)("is decoded: %s", async (coding, encode) => {
    const headers = { "Content-Type": "text/event-stream", "Content-Encoding": coding };
    const { fault, seen, attempt } = await outcomeOf(sending(encode(answer), headers));
    expect(fault).toBeNull();
    expect(seen).toBe(answer.replace("data: [DONE]\n\n", ""));
    expect(attempt?.reader.usage).toMatchObject({ input: 5, output: 1 });
  });

  it.each(codings)("is decoded where it is one JSON or an error: %s", async (coding, encode) => {
    const headers = { "Content-Type": "application/json", "Content-Encoding": coding };
    expect((await outcomeOf(sending(encode(whole), headers))).fault).toBeNull();
    const refusal = JSON.stringify({ error: { message: "too long", code: "context_length_exceeded" } });
    expect((await outcomeOf(sending(encode(refusal), headers, 400))).fault?.facts).toMatchObject({
      kind: "bad_request",
      upstreamMessage: "too long",
    });
  });

  it.each(codings)("is complete where it is cut behind the end of the answer: %s", async (coding, encode) => {
    const headers = { "Content-Type": "text/event-stream", "Content-Encoding": coding };
    const tail = randomBytes(50_000).toString("hex");
    const bytes = encode(`${answer.replace("data: [DONE]\n\n", "")}: ${tail}\n\n`);
    const { fault, seen } = await outcomeOf((provider) => {
      provider.head(200, headers);
      provider.send(bytes.subarray(0, -5));
      provider.socket.end();
    });
    expect(fault).toBeNull();
    expect(seen).toContain('"stop"');
  });

  it("is refused with words where it is damaged, and not asked for again", async () => {
    for (const [coding] of codings) {
      const headers = { "Content-Type": "text/event-stream", "Content-Encoding": coding };
      const { fault } = await outcomeOf(sending(Buffer.alloc(100, 0xfe), headers));
      expect(fault?.facts).toMatchObject({ kind: "invalid_response", stage: "first_event" });
      expect(fault?.facts.upstreamMessage).toContain("coding");
      expect(fault?.rule.retry).toBe("elsewhere");
    }
  });

  it("is a broken answer where it is damaged further on", async () => {
    const headers = { "Content-Type": "text/event-stream", "Content-Encoding": "gzip" };
    const { fault, seen } = await outcomeOf((provider) => {
      provider.head(200, headers);
      provider.send(gzipSync(delta("a"), flushed));
      setTimeout(() => {
        provider.send(Buffer.alloc(100, 0xfe));
      }, 50);
    });
    expect(seen).toBe(delta("a"));
    expect(fault?.facts).toMatchObject({ kind: "invalid_response", stage: "streaming" });
  });

  it.each([200, 400, 500])("is refused with words under %d where nobody can decode it", async (status) => {
    const headers = { "Content-Type": "text/event-stream", "Content-Encoding": "zstd" };
    const { fault } = await outcomeOf(sending(Buffer.alloc(10, 1), headers, status));
    expect(fault?.head).toMatchObject({ status, contentEncoding: "zstd" });
    if (status === 200) expect(fault?.facts.upstreamMessage).toContain("coding");
  });

  it("of which more comes out than an event, a JSON or an error may have is bounded", async () => {
    const blanks = Buffer.alloc(40 << 20, "x");
    const bomb = gzipSync(blanks);
    expect(bomb.length).toBeLessThan(100_000);
    const coded = { "Content-Encoding": "gzip" };
    const event = await outcomeOf(
      sending(gzipSync(`data: ${blanks.toString()}`), { "Content-Type": "text/event-stream", ...coded }),
    );
    expect(event.fault?.facts.upstreamMessage).toContain("16 MiB");
    const json = await outcomeOf(
      sending(gzipSync(`{"a":"${blanks.toString()}`), { "Content-Type": "application/json", ...coded }),
    );
    expect(json.fault?.facts.upstreamMessage).toContain("too large");
    const error = await outcomeOf(sending(bomb, { "Content-Type": "text/plain", ...coded }, 500));
    expect(error.fault?.facts).toMatchObject({ kind: "server_error", status: 500 });
  });

  it("is read no faster than its reader takes it", async () => {
    const lines = Array.from({ length: 20_000 }, (_, at) => delta(`${at} ${"x".repeat(200)}`));
    const provider = await startRawProvider(
      sending(gzipSync(lines.join("") + answer), { "Content-Type": "text/event-stream", "Content-Encoding": "gzip" }),
    );
    const { attempt, seen, ended } = await readFrom(provider);
    attempt.pause();
    const turns = async (count: number): Promise<void> => {
      for (let turn = 0; turn < count; turn++) await new Promise(setImmediate);
    };
    await turns(50);
    const before = seen.length;
    await turns(50);
    expect(seen.length).toBe(before);
    expect(before).toBeLessThan(lines.length);
    attempt.resume();
    expect(await ended).toBeNull();
    expect(seen).toHaveLength(lines.length + 3);
  });

  it("may last until its connection closes, however fast it is read", async () => {
    const lines = Array.from({ length: 3000 }, (_, at) => delta(`${at} ${randomBytes(150).toString("hex")}`));
    const coded = gzipSync(lines.join("") + answer);
    for (const pauses of [true, false]) {
      const provider = await startRawProvider(({ socket }) => {
        socket.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n\r\n");
        socket.end(coded);
      });
      const { attempt, seen, ended } = await readFrom(provider);
      const slow = setInterval(() => {
        attempt.pause();
        setImmediate(() => {
          attempt.resume();
        });
      }, 1);
      if (!pauses) clearInterval(slow);
      expect(await ended).toBeNull();
      clearInterval(slow);
      expect(seen).toHaveLength(lines.length + 3);
    }
  });

  it("leaves nothing behind where the answer is given up", async () => {
    const lines = Array.from({ length: 2000 }, (_, at) => delta(String(at)));
    const provider = await startRawProvider((answer) => {
      answer.head(200, { "Content-Type": "text/event-stream", "Content-Encoding": "gzip" });
      answer.send(gzipSync(lines.join(""), flushed));
    });
    const { attempt, seen } = await readFrom(provider);
    attempt.cancel();
    const before = seen.length;
    for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
    expect(seen.length).toBe(before);
    expect(attempt.provider.health.stats.inFlight).toBe(0);
  });
});

describe("A9: a list of models in a coding that nobody asked for", () => {
  afterEach(closeAll);

  it.each(codings)("is decoded: %s", async (coding, encode) => {
    const { url } = await serve((response) => {
      response.writeHead(200, { "content-encoding": coding }).end(encode('{"data":[{"id":"m1"}]}'));
    });
    const list = createModelList({ providers: [open("a", { baseUrl: url })], aliases: {}, clock: systemClock });
    expect(await list.list()).toEqual([{ id: "m1", ownedBy: "a" }]);
  });

  it.each([
    ["damaged", "gzip", Buffer.alloc(100, 0xfe)],
    ["larger than it may be", "gzip", gzipSync(`{"data":[],"a":"${"x".repeat(9 << 20)}"}`)],
    ["in an unknown coding", "zstd", Buffer.from("x")],
  ])("is none where it is %s", async (_, coding, bytes) => {
    const { url } = await serve((response) => {
      response.writeHead(200, { "content-encoding": coding }).end(bytes);
    });
    const list = createModelList({ providers: [open("a", { baseUrl: url })], aliases: {}, clock: systemClock });
    expect(await list.reachability()).toMatchObject([{ ok: false, reason: "no JSON" }]);
  });
});

describe("A9: an answer says the same with and without coding", () => {
  const provider = testProvider("read");
  const question = {
    api: "chat",
    collects: false,
    choices: 1,
    canDropStreamOptions: () => true,
    bodyFor: () => Buffer.from("{}"),
  } as const;

  /** What comes of a body that the network cuts into these pieces. */
  function read(pieces: readonly Buffer[], headers: Headers): Promise<{ seen: string; fault: string | null }> {
    return new Promise((resolve, reject) => {
      let seen = "";
      const listener = {
        stage: "first_event" as const,
        onEvent: (bytes: Buffer, start: number, end: number) => {
          seen += bytes.toString("utf8", start, end);
        },
        onBatch: () => undefined,
        onEnd: () => undefined,
        onReadable: () => undefined,
        onException: reject,
        onBodyEnd: (fault: UpstreamError | null) => {
          resolve({ seen, fault: fault?.facts.kind ?? null });
        },
      };
      const body = new ResponseBody(question, provider, listener, () => 0);
      expect(body.start("m", 200, headers)).toBeNull();
      for (const piece of pieces) if (piece.length > 0) body.push(piece);
      body.end(null);
    });
  }

  const piece = fc.oneof(
    anyText({ maxLength: 20 }).map((text) => delta(text)),
    fc.constantFrom(
      ": keep-alive\n\n",
      "data:\n\n",
      "\n",
      "id: 4\ndata: {}\n\n",
      delta("", "stop"),
      "data: [DONE]\n\n",
    ),
  );

  it("wherever it is cut", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(piece, { maxLength: 6 }),
        fc.constantFrom(...codings),
        async (events, [coding, encode]) => {
          const plain = Buffer.from(events.join(""));
          const coded = encode(plain);
          const type = { "content-type": "text/event-stream" };
          const expected = await read([plain], type);
          for (let at = 0; at <= plain.length; at++) {
            expect(await read([plain.subarray(0, at), plain.subarray(at)], type)).toEqual(expected);
          }
          const eachByte = Array.from(coded, (_, at) => coded.subarray(at, at + 1));
          expect(await read(eachByte, { ...type, "content-encoding": coding })).toEqual(expected);
          for (let at = 0; at <= coded.length; at += 7) {
            const cut = [coded.subarray(0, at), coded.subarray(at)];
            expect(await read(cut, { ...type, "content-encoding": coding })).toEqual(expected);
          }
        },
      ),
      { numRuns: 20 },
    );
  });
});
