import { fc } from "../support/fast-check.ts";
import { describe, expect, it } from "vitest";
import { createLogOutput } from "../../src/events/log-output.ts";

class FileError extends Error {
  readonly code: string;
  constructor(code: string) {
    super(code);
    this.code = code;
  }
}

/** A reader that takes so many bytes at each turn, or fails. */
function reader(turns: readonly (number | string)[]) {
  let text = "";
  let turn = 0;
  const write = (bytes: Uint8Array): number => {
    const what = turns[turn++ % turns.length] ?? "EAGAIN";
    if (typeof what === "string") throw new FileError(what);
    const taken = bytes.subarray(0, what);
    text += Buffer.from(taken).toString("latin1");
    return taken.length;
  };
  return { write, text: () => text };
}

const line = (number: number): string => `{"line":${number}}\n`;

describe("D2: the output of log lines", () => {
  it("writes each line once and in order, however little is taken at a time", () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constant("EAGAIN")), { minLength: 1, maxLength: 4 }),
        (turns) => {
          fc.pre(turns.some((turn) => typeof turn === "number"));
          const to = reader(turns);
          const output = createLogOutput({ write: to.write, flushMs: 60_000 });
          const lines = Array.from({ length: 9 }, (_, number) => line(number));
          for (const one of lines) output.write(one);
          output.flush();
          expect(to.text()).toBe(lines.join(""));
          expect(output.dropped()).toBe(0);
        },
      ),
      { numRuns: 30 },
    );
  });

  it.each(["EPIPE", "ECONNRESET", "ENOSPC", "EIO", "EBADF", "EFBIG"])("drops and counts lines at %s", (code) => {
    const to = reader([code]);
    const output = createLogOutput({ write: to.write });
    for (let i = 0; i < 3; i++) output.write(line(i));
    output.flush();
    output.write(line(3));
    output.flush();
    expect(output.dropped()).toBe(4);
  });

  it("begins a new line after one that broke off", () => {
    const to = reader([5, "ENOSPC", 100]);
    const output = createLogOutput({ write: to.write });
    output.write(line(1));
    output.flush();
    output.write(line(2));
    output.flush();
    expect(to.text()).toBe(`{"lin\n${line(2)}`);
    expect(output.dropped()).toBe(1);
  });

  it("gives up at the end, and drops what nobody has taken", () => {
    const output = createLogOutput({ write: reader(["EAGAIN"]).write, flushMs: 20 });
    for (let i = 0; i < 3; i++) output.write(line(i));
    output.flush();
    expect(output.dropped()).toBe(3);
  });

  it("holds no more than it may", () => {
    const output = createLogOutput({ write: reader(["EAGAIN"]).write, maxBytes: 100_000, flushMs: 1 });
    const long = `${"x".repeat(39_999)}\n`;
    for (let i = 0; i < 5; i++) output.write(long);
    expect(output.dropped()).toBe(3);
  });
});
