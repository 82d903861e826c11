import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { createDeadLetters } from "../../src/events/webhook/dead-letters.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { tempDir } from "../support/temp-dir.ts";

test("keeps the latest lines in two files of a bounded size", async () => {
  const file = join(tempDir(), "undelivered.jsonl");
  const letters = createDeadLetters({ file, maxBytes: () => 100, log: createCapturedLog() });
  const line = (number: number) => `{"n":${number},"a":"abcdef"}`;
  for (let at = 0; at < 9; at++) void letters.add([line(at)]);
  await letters.add([line(9), "x".repeat(60)]);
  const read = async (name: string) => (await readFile(name, "utf8")).trimEnd().split("\n");
  expect(await read(`${file}.1`)).toEqual([line(6), line(7)]);
  expect(await read(file)).toEqual([line(8), line(9)]);
  expect(letters.lost()).toBe(1);
});

test("counts what can't be written, and keeps nothing if it is to keep nothing", async () => {
  const folder = tempDir();
  await writeFile(join(folder, "blocked"), "");
  const log = createCapturedLog();
  const broken = createDeadLetters({ file: join(folder, "blocked", "file"), maxBytes: () => 100, log });
  await broken.add(["{}", "{}"]);
  expect(broken.lost()).toBe(2);
  expect(log.lines).toHaveLength(1);
  const none = createDeadLetters({ file: join(folder, "none"), maxBytes: () => 0, log });
  await none.add(["{}"]);
  await expect(readFile(join(folder, "none"))).rejects.toThrow("ENOENT");
});
