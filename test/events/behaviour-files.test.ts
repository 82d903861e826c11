import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  behaviourFileName,
  lastPart,
  removeBeyondSize,
  removeOldFiles,
} from "../../src/events/log-files/behaviour-files.ts";

let root: string;

beforeEach(async () => {
  root = await mkdtemp(path.join(tmpdir(), "behaviour-files-"));
});

afterEach(() => rm(root, { recursive: true }));

async function put(...names: readonly string[]): Promise<void> {
  for (const name of names) {
    await mkdir(path.dirname(path.join(root, name)), { recursive: true });
    await writeFile(path.join(root, name), "x\n");
  }
}

describe("behaviour log files", () => {
  test("the last part of a day is found by number, not by text", async () => {
    await put("2026-11-22.jsonl", "2026-11-22.2.jsonl", "2026-11-22.10.jsonl", "2026-11-21.99.jsonl");
    expect(await lastPart(root, "2026-11-22")).toBe(10);
    expect(await lastPart(root, "2026-11-23")).toBe(0);
    expect([behaviourFileName("2026-11-22", 0), behaviourFileName("2026-11-22", 10)]).toEqual([
      "2026-11-22.jsonl",
      "2026-11-22.10.jsonl",
    ]);
  });

  test("files of days before the first that is kept go, all others stay", async () => {
    await put("alice/2026-10-31.jsonl", "alice/2026-10-31.1.jsonl", "alice/2026-11-01.jsonl", "bob/2025-12-31.jsonl");
    await put("_unknown/2026-01-01.jsonl");
    expect(await removeOldFiles(root, "2026-11-01")).toBe(4);
    expect(await readdir(path.join(root, "alice"))).toEqual(["2026-11-01.jsonl"]);
    expect(await readdir(path.join(root, "bob"))).toEqual([]);
  });

  test("the oldest days go until the rest is small enough, but never today's", async () => {
    // Two bytes each.
    await put("alice/2026-10-31.jsonl", "bob/2026-11-01.jsonl", "alice/2026-11-02.jsonl", "bob/2026-11-03.jsonl");
    expect(await removeBeyondSize(root, 8, "2026-11-03")).toBe(0);
    expect(await removeBeyondSize(root, 5, "2026-11-03")).toBe(2);
    expect(await readdir(path.join(root, "alice"))).toEqual(["2026-11-02.jsonl"]);
    expect(await removeBeyondSize(root, 1, "2026-11-03")).toBe(1);
    expect(await readdir(path.join(root, "bob"))).toEqual(["2026-11-03.jsonl"]);
  });

  test("touches nothing whose name is not its own, and follows no symlinks", async () => {
    const strange = [
      "2020-01-01.jsonl.bak",
      "2020-01-01.txt",
      "2020-01-01.0.jsonl",
      "notes.jsonl",
      "x2020-01-01.jsonl",
    ];
    await put(...strange.map((name) => `alice/${name}`), "Elsewhere/2020-01-01.jsonl", "2020-01-01.jsonl");
    await mkdir(path.join(root, "alice/2020-01-02.jsonl"));
    await symlink(path.join(root, "Elsewhere"), path.join(root, "bob"));
    await symlink(path.join(root, "Elsewhere/2020-01-01.jsonl"), path.join(root, "alice/2020-01-03.jsonl"));
    expect(await removeOldFiles(root, "2026-11-01")).toBe(0);
    expect(await readdir(path.join(root, "alice"))).toHaveLength(strange.length + 2);
    expect(await readdir(path.join(root, "Elsewhere"))).toEqual(["2020-01-01.jsonl"]);
  });
});
