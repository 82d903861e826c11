import { anyText, fc } from "../support/fast-check.ts";
import { afterEach, describe, expect, it, vi } from "vitest";
import { SseEventTooLargeError, SseScanner } from "../../src/lib/sse-scanner.ts";

interface SeenEvent {
  readonly name: string;
  readonly data: string;
}

interface Seen {
  /** Read at the very end, so that a buffer that is used again would show. */
  readonly events: () => SeenEvent[];
  /** All raw ranges, one after the other. */
  readonly raw: () => Buffer;
  /** "event" or "comment", in order. */
  readonly blocks: readonly string[];
  readonly scanner: SseScanner;
}

function scan(chunks: readonly Buffer[], maxEventBytes = 1 << 24): Seen {
  const raw: Buffer[] = [];
  const events: { readonly name: string; readonly data: Buffer }[] = [];
  const blocks: string[] = [];
  const scanner = new SseScanner(
    {
      onEvent(event, start, end, data, dataStart, dataEnd, name) {
        raw.push(event.subarray(start, end));
        events.push({ name, data: data.subarray(dataStart, dataEnd) });
        blocks.push("event");
      },
      onComment(event, start, end) {
        raw.push(event.subarray(start, end));
        blocks.push("comment");
      },
    },
    maxEventBytes,
  );
  for (const chunk of chunks) scanner.push(chunk);
  return {
    events: () => events.map(({ name, data }) => ({ name, data: data.toString() })),
    raw: () => Buffer.concat(raw),
    blocks,
    scanner,
  };
}

/** The standard's algorithm on the whole text, for LF and CRLF. */
function reference(text: string): SeenEvent[] {
  const events: SeenEvent[] = [];
  let data: string[] = [];
  let name = "";
  const lines = text.replace(/^\uFEFF/, "").split(/\r?\n/);
  for (const line of lines.slice(0, -1)) {
    if (line === "") {
      if (data.length > 0) events.push({ name, data: data.join("\n") });
      data = [];
      name = "";
    }
    const [, field = "", value = ""] = /^([^:]*):? ?([^]*)$/.exec(line) ?? [];
    if (field === "data") data.push(value);
    if (field === "event") name = value;
  }
  return events;
}

function cut(bytes: Buffer, at: readonly number[]): Buffer[] {
  const places = [0, ...at.map((n) => n % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  return places.slice(1).map((end, i) => Buffer.from(bytes.subarray(places[i], end)));
}

function singleBytes(bytes: Buffer): Buffer[] {
  return Array.from({ length: bytes.length }, (_, i) => bytes.subarray(i, i + 1));
}

const text = anyText({ maxLength: 20 }).map((s) => s.replaceAll("\n", ""));
const line = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.tuple(fc.constantFrom("data:", "data: ", "data:  "), text).map((parts) => parts.join("")),
  },
  { weight: 4, arbitrary: fc.constant("") },
  fc
    .tuple(fc.constantFrom("event:", "event: ", "id: ", "retry:", ":", ": ", "datax: ", "Data: "), text)
    .map((parts) => parts.join("")),
  fc.constantFrom("data", "event", "id", "\r", "\uFEFF", "dat", ": keep-alive"),
  text,
);
const stream = fc
  .tuple(fc.boolean(), fc.array(fc.tuple(line, fc.constantFrom("\n", "\n", "\r\n")), { maxLength: 30 }), text)
  .map(([mark, lines, rest]) => (mark ? "\uFEFF" : "") + lines.flat().join("") + rest);

afterEach(() => {
  vi.restoreAllMocks();
});

describe("SseScanner", () => {
  it("finds the events that the standard's algorithm finds, whatever the framing and the cuts", () => {
    fc.assert(
      fc.property(stream, fc.array(fc.nat()), (input, cuts) => {
        const bytes = Buffer.from(input);
        const seen = scan(cut(bytes, cuts));
        expect(seen.events()).toEqual(reference(bytes.toString()));
      }),
      { numRuns: 2000 },
    );
  });

  it("hands on every byte once and in order, and counts what is left", () => {
    fc.assert(
      fc.property(stream, fc.array(fc.nat()), (input, cuts) => {
        const bytes = Buffer.from(input);
        const seen = scan(cut(bytes, cuts));
        const raw = seen.raw();
        expect(raw.equals(bytes.subarray(0, raw.length))).toBe(true);
        expect(seen.scanner.pendingBytes).toBe(bytes.length - raw.length);
      }),
      { numRuns: 1000 },
    );
  });

  it("finds the same in single bytes as in one piece", () => {
    fc.assert(
      fc.property(stream, (input) => {
        const bytes = Buffer.from(input);
        expect(scan(singleBytes(bytes)).blocks).toEqual(scan([bytes]).blocks);
      }),
    );
  });

  it.each([
    ["data: a\n\n", [{ name: "", data: "a" }]],
    ["data:a\n\n", [{ name: "", data: "a" }]],
    ["data:  a \n\n", [{ name: "", data: " a " }]],
    ["data: a\r\n\r\n", [{ name: "", data: "a" }]],
    ["data: a\r\n\n", [{ name: "", data: "a" }]],
    ["data: a\n\r\n", [{ name: "", data: "a" }]],
    ["data:\n\n", [{ name: "", data: "" }]],
    ["data: \r\n\r\n", [{ name: "", data: "" }]],
    ["data:\r\n\n", [{ name: "", data: "" }]],
    ["data\n\n", [{ name: "", data: "" }]],
    ["\uFEFFdata: a\n\n", [{ name: "", data: "a" }]],
    ["data: a\n\n\uFEFFdata: b\n\n", [{ name: "", data: "a" }]],
    ["\n\r\n\ndata: a\n\n", [{ name: "", data: "a" }]],
    ["data: a\ndata:\ndata: b\n\n", [{ name: "", data: "a\n\nb" }]],
    ["id: 1\nevent: error\nretry: 5\ndata: a\n\n", [{ name: "error", data: "a" }]],
    ["data: a\nevent: error\n\n", [{ name: "error", data: "a" }]],
    [": note\ndata: a\n: note\n\n", [{ name: "", data: "a" }]],
    ["event: ping\n\ndata: a\n\n", [{ name: "", data: "a" }]],
    ["datax: a\n\n", []],
    [": keep-alive\n\n", []],
    ["data: cut off\n", []],
  ])("reads %j", (input, events) => {
    expect(scan([Buffer.from(input)]).events()).toEqual(events);
  });

  it("tells comments and stray blank lines from events", () => {
    const seen = scan([Buffer.from(": keep-alive\n\n\n\ndata: a\n\nid: 4\n\ndata: b\n\n")]);
    expect(seen.blocks).toEqual(["comment", "comment", "comment", "event", "comment", "event"]);
  });

  it("reads an event that is cut at any byte", () => {
    const event = 'data: {"choices":[],"usage":{"prompt_tokens":6,"text":"原理"}}';
    for (const end of ["\n\n", "\r\n\r\n"]) {
      const bytes = Buffer.from(`data: 1${end}${event}${end}: keep-alive${end}data: [DONE]${end}`);
      for (let at = 0; at <= bytes.length; at++) {
        const seen = scan([bytes.subarray(0, at), bytes.subarray(at)]);
        expect(seen.events().map(({ data }) => data)).toEqual(["1", event.slice("data: ".length), "[DONE]"]);
        expect(seen.raw().equals(bytes)).toBe(true);
      }
    }
  });

  it("hands on whole events as ranges of the chunk, without a copy", () => {
    const chunk = Buffer.from("data: a\n\ndata: b\r\n\r\nevent: x\ndata: c\n\n");
    const buffers: Buffer[] = [];
    const scanner = new SseScanner(
      {
        onEvent: (event, _start, _end, data) => buffers.push(event, data),
        onComment: (event) => buffers.push(event),
      },
      1000,
    );
    scanner.push(chunk);
    expect(buffers).toHaveLength(6);
    expect(buffers.every((buffer) => buffer === chunk)).toBe(true);
  });

  it("searches each whole event once", () => {
    const chunk = Buffer.from("data: a\n\n".repeat(50));
    const searched = vi.spyOn(Buffer.prototype, "indexOf");
    const seen = scan([chunk]);
    const searches = searched.mock.calls.length;
    vi.restoreAllMocks();
    expect(seen.blocks).toHaveLength(50);
    expect(searches).toBe(50);
  });

  it.each([1, 7, 1000])("copies and searches an event in slices of %i bytes in linear work", (size) => {
    const bytes = Buffer.from(`data: ${"x".repeat(50_000)}\n\n`);
    const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) =>
      bytes.subarray(i * size, (i + 1) * size),
    );
    const copied = vi.spyOn(Buffer.prototype, "copy");
    const searched = vi.spyOn(Buffer.prototype, "indexOf");
    const seen = scan(chunks);
    const copiedBytes = copied.mock.results.reduce((sum, result) => sum + Number(result.value), 0);
    const searchedBytes = (searched.mock.contexts as Buffer[]).reduce((sum, buffer) => sum + buffer.length, 0);
    vi.restoreAllMocks();
    expect(seen.events()).toHaveLength(1);
    expect(copiedBytes).toBeLessThan(3 * bytes.length);
    expect(searchedBytes).toBeLessThanOrEqual(bytes.length + size);
  });

  it("refuses an event over the limit wherever it is cut, after handing on those before it", () => {
    const fits = "data: 12\n\n";
    const bytes = Buffer.from(`${fits}data: 123\n\n${fits}`);
    for (let at = 0; at <= bytes.length; at++) {
      const names: string[] = [];
      const onEvent = (_event: Buffer, _start: number, _end: number, data: Buffer, from: number, to: number) =>
        names.push(data.toString("utf8", from, to));
      const scanner = new SseScanner({ onEvent, onComment: () => undefined }, fits.length);
      expect(() => {
        scanner.push(bytes.subarray(0, at));
        scanner.push(bytes.subarray(at));
      }).toThrow(SseEventTooLargeError);
      expect(names).toEqual(["12"]);
    }
  });

  it("does not wait for the end of an event that is over the limit already", () => {
    const scanner = new SseScanner({ onEvent: () => undefined, onComment: () => undefined }, 100);
    scanner.push(Buffer.alloc(100, "x"));
    expect(scanner.pendingBytes).toBe(100);
    expect(() => {
      scanner.push(Buffer.from("x"));
    }).toThrow("larger than 100 bytes");
  });
});
