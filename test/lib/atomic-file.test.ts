import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { readPlainFile, removeTemporaries, writeFileAtomic } from "../../src/lib/files/atomic-file.ts";
import { createFaultyFiles, type Fault, type FaultyKind } from "../support/faulty-files.ts";
import { tempDir } from "../support/temp-dir.ts";

describe("writeFileAtomic", () => {
  it("makes a file that only its owner may read", async () => {
    const path = join(tempDir(), "a.toml");
    await writeFileAtomic(path, "héllo");
    expect(readFileSync(path, "utf8")).toBe("héllo");
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  it("finishes a file that is written in several pieces", async () => {
    const path = join(tempDir(), "a.toml");
    const ops = createFaultyFiles();
    ops.fail("write", "short", 1, 3);
    await writeFileAtomic(path, "0123456789", { ops });
    expect(readFileSync(path, "utf8")).toBe("0123456789");
  });

  it("gives two writers at once one whole file, not a mixture", async () => {
    const path = join(tempDir(), "a.toml");
    const texts = Array.from({ length: 20 }, (_, i) => String(i).repeat(5000));
    await Promise.all(texts.map((text) => writeFileAtomic(path, text)));
    expect(texts).toContain(readFileSync(path, "utf8"));
  });

  it("replaces a symlink and leaves its target alone", async () => {
    const folder = tempDir();
    writeFileSync(join(folder, "target"), "precious");
    symlinkSync(join(folder, "target"), join(folder, "a.toml"));
    await writeFileAtomic(join(folder, "a.toml"), "new");
    expect(readFileSync(join(folder, "target"), "utf8")).toBe("precious");
    expect(readFileSync(join(folder, "a.toml"), "utf8")).toBe("new");
  });

  const faults: [FaultyKind, Fault][] = [
    ["open", "ENOSPC"],
    ["write", "ENOSPC"],
    ["write", "EIO"],
    ["sync", "EIO"],
    ["rename", "EIO"],
  ];
  it.each(faults)("keeps the old file and leaves no other when %s fails with %s", async (kind, fault) => {
    const folder = tempDir();
    const path = join(folder, "a.toml");
    writeFileSync(path, "old");
    const ops = createFaultyFiles();
    ops.fail(kind, fault);
    await expect(writeFileAtomic(path, "new", { ops })).rejects.toMatchObject({ code: fault });
    expect(readFileSync(path, "utf8")).toBe("old");
    expect(readdirSync(folder)).toEqual(["a.toml"]);
  });

  it("says so when the folder cannot be synced", async () => {
    const ops = createFaultyFiles();
    ops.fail("sync", "EIO", 2);
    await expect(writeFileAtomic(join(tempDir(), "a.toml"), "new", { ops })).rejects.toMatchObject({ code: "EIO" });
  });

  it("leaves the sync of the folder to a caller who wants to do it once for many files", async () => {
    const ops = createFaultyFiles();
    await writeFileAtomic(join(tempDir(), "a.toml"), "new", { ops, syncFolder: false });
    expect(ops.count("sync")).toBe(1);
  });
});

describe("readPlainFile", () => {
  it("refuses a file that would fill the memory", async () => {
    const path = join(tempDir(), "large");
    writeFileSync(path, "");
    truncateSync(path, (256 << 20) + 1);
    await expect(readPlainFile(path)).rejects.toThrow("is larger than 268435456 bytes");
  });

  it("refuses a symlink", async () => {
    const folder = tempDir();
    writeFileSync(join(folder, "target"), "secret");
    symlinkSync(join(folder, "target"), join(folder, "link"));
    await expect(readPlainFile(join(folder, "link"))).rejects.toMatchObject({ code: "ELOOP" });
    expect(await readPlainFile(join(folder, "target"))).toBe("secret");
  });

  it("refuses a folder and a pipe without waiting for them", async () => {
    const folder = tempDir();
    mkdirSync(join(folder, "dir"));
    execFileSync("/usr/bin/mkfifo", [join(folder, "pipe")]);
    await expect(readPlainFile(join(folder, "dir"))).rejects.toThrow("not a plain file");
    await expect(readPlainFile(join(folder, "pipe"))).rejects.toThrow("not a plain file");
  });

  it("refuses bytes that are not UTF-8", async () => {
    const path = join(tempDir(), "a");
    writeFileSync(path, Buffer.from([0x61, 0xff]));
    await expect(readPlainFile(path)).rejects.toThrow("not valid UTF-8");
  });
});

describe("removeTemporaries", () => {
  it("removes only what an interrupted write of such a file left", async () => {
    const folder = tempDir();
    const keep = ["a.quota.toml", ".a.toml.0123456789abcdef.tmp", ".a.quota.toml.tmp", "b.tmp"];
    for (const name of [...keep, ".a.quota.toml.0123456789abcdef.tmp"]) writeFileSync(join(folder, name), "");
    expect(await removeTemporaries(folder, ".quota.toml")).toBe(1);
    expect(readdirSync(folder).sort()).toEqual([...keep].sort());
  });
});
