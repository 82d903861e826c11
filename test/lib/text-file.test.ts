import { randomBytes } from "node:crypto";
import { type FileHandle, open, readdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { readFileSync } from "node:fs";
import { expect, onTestFinished, test } from "vitest";
import { plainFile, readGzip, type TextFile, writeGzip } from "../../src/lib/files/text-file.ts";
import { tempDir } from "../support/temp-dir.ts";

const blockBytes = 256 << 10;

async function opened(name: string, flags: string): Promise<FileHandle> {
  const handle = await open(name, flags);
  onTestFinished(() => handle.close().catch(() => undefined));
  return handle;
}

/** The name of a file in which a text stands compressed. */
async function compressed(text: Buffer): Promise<string> {
  const folder = tempDir();
  await writeFile(join(folder, "text"), text);
  const [source, target] = [
    await plainFile(await opened(join(folder, "text"), "r")),
    await open(join(folder, "gz"), "w"),
  ];
  expect(await writeGzip(source, target, () => Promise.resolve(true))).toBe(true);
  await target.close();
  return join(folder, "gz");
}

async function reader(name: string): Promise<TextFile> {
  const file = await readGzip(await open(name, "r"), name, 1 << 30);
  onTestFinished(() => file.close());
  return file;
}

test.each([0, 1, 1000, blockBytes, blockBytes + 1, 3 * blockBytes + 17])(
  "a text of %i bytes is read anywhere, and by any other program",
  async (length) => {
    const text = randomBytes(length);
    const name = await compressed(text);
    expect(gunzipSync(readFileSync(name)).equals(text)).toBe(true);
    const file = await reader(name);
    expect(file.size).toBe(length);
    for (const [from, count] of [
      [0, length + 1],
      [0, 1],
      [length - 1, 5],
      [length, 5],
      [length + 5, 5],
      [blockBytes - 3, 6],
      [2 * blockBytes, blockBytes + 1],
      [7, 128 << 10],
    ] as [number, number][]) {
      if (from < 0) continue;
      expect((await file.readAt(from, count)).equals(text.subarray(from, from + count))).toBe(true);
    }
  },
);

test("what gzip has written is read as well, and leaves nothing behind", async () => {
  const text = Buffer.concat([randomBytes(100_000), Buffer.alloc(300_000, "line\n")]);
  const name = join(tempDir(), "foreign.gz");
  await writeFile(name, gzipSync(text));
  const file = await reader(name);
  expect(file.size).toBe(text.length);
  expect((await file.readAt(99_000, 5000)).equals(text.subarray(99_000, 104_000))).toBe(true);
  expect(await readdir(dirname(name))).toEqual(["foreign.gz"]);
});

test.each([1, 20, 300, 262_144])("%i bytes cut off its end leave what comes before them", async (cut) => {
  const text = Buffer.from("a line of text\n".repeat(200_000));
  const name = await compressed(text);
  const bytes = readFileSync(name);
  await writeFile(name, bytes.subarray(0, Math.max(0, bytes.length - cut)));
  const file = await reader(name);
  expect(file.size).toBeLessThanOrEqual(text.length);
  expect((await file.readAt(0, file.size)).equals(text.subarray(0, file.size))).toBe(true);
});

test("a damaged block reads as zeros, and what is around it as it was", async () => {
  const text = randomBytes(3 * blockBytes);
  const name = await compressed(text);
  const bytes = readFileSync(name);
  bytes.fill(0, blockBytes + 5000, blockBytes + 6000);
  await writeFile(name, bytes);
  const file = await reader(name);
  const read = await file.readAt(0, text.length);
  expect(read.subarray(0, blockBytes).equals(text.subarray(0, blockBytes))).toBe(true);
  expect(read.subarray(blockBytes, 2 * blockBytes).every((byte) => byte === 0)).toBe(true);
  expect(read.subarray(2 * blockBytes).equals(text.subarray(2 * blockBytes))).toBe(true);
});

test("it stops where it is told to", async () => {
  const folder = tempDir();
  await writeFile(join(folder, "text"), randomBytes(3 * blockBytes));
  const [source, target] = [
    await plainFile(await opened(join(folder, "text"), "r")),
    await opened(join(folder, "gz"), "w"),
  ];
  let blocks = 0;
  expect(await writeGzip(source, target, () => Promise.resolve(++blocks < 2))).toBe(false);
  expect(blocks).toBe(2);
});
