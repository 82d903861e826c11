import { fc } from "../support/fast-check.ts";
import { describe, expect, it } from "vitest";
import { GrowingBuffer } from "../../src/lib/growing-buffer.ts";

describe("GrowingBuffer", () => {
  it("gives back what was pushed, up to its size, whatever was expected", () => {
    const pieces = fc.array(fc.uint8Array({ maxLength: 3000 }).map((bytes) => Buffer.from(bytes)));
    fc.assert(
      fc.property(pieces, fc.nat(20_000), fc.nat(20_000), (all, max, expected) => {
        const buffer = new GrowingBuffer(max, expected);
        const limit = expected > 0 ? Math.min(max, expected) : max;
        const taken: Buffer[] = [];
        for (const piece of all) {
          const fits = Buffer.concat(taken).length + piece.length <= limit;
          expect(buffer.push(piece)).toBe(fits);
          if (fits) taken.push(piece);
        }
        expect(buffer.take().equals(Buffer.concat(taken))).toBe(true);
      }),
    );
  });

  it("keeps a copy", () => {
    const buffer = new GrowingBuffer(10);
    const piece = Buffer.from("a");
    buffer.push(piece);
    piece.write("b");
    expect(buffer.take().toString()).toBe("a");
  });

  it("sets little aside on somebody's word", () => {
    expect(new GrowingBuffer(8 << 20, 8 << 20).take().buffer.byteLength).toBeLessThan(1 << 20);
  });
});
