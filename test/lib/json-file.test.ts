import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { z } from "zod";
import { readJsonFile } from "../../src/lib/files/json-file.ts";
import { tempDir } from "../support/temp-dir.ts";

const schema = z.array(z.int());

it("a file of JSON is read, and is what is given where it is missing", async () => {
  const path = join(tempDir(), "numbers.json");
  expect(await readJsonFile(path, schema, [7])).toEqual([7]);
  writeFileSync(path, "[1, 2]\n");
  expect(await readJsonFile(path, schema, [7])).toEqual([1, 2]);
});

it.each(["", "[1,", '["one"]'])("a file that holds %j is named, and not taken for a missing one", async (text) => {
  const path = join(tempDir(), "numbers.json");
  writeFileSync(path, text);
  await expect(readJsonFile(path, schema, [])).rejects.toThrow(`${path} does not hold what the proxy writes there`);
});

it("a folder in its place is named", async () => {
  const path = join(tempDir(), "numbers.json");
  mkdirSync(path);
  await expect(readJsonFile(path, schema, [])).rejects.toThrow(path);
});
