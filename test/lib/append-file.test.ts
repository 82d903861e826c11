import {
  type FileHandle,
  mkdtemp,
  open,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  unlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { openAppendFile } from "../../src/lib/files/append-file.ts";

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "append-file-"));
});

afterEach(() => rm(folder, { recursive: true }));

describe("append file", () => {
  test("goes on after what is there, and knows its size", async () => {
    const name = path.join(folder, "a");
    await writeFile(name, "one\n");
    const file = await openAppendFile(name);
    await file.append(Buffer.from("two\n"));
    expect(file.size).toBe(8);
    await file.close();
    expect(await readFile(name, "utf8")).toBe("one\ntwo\n");
  });

  test("ends a line that a crash cut short", async () => {
    const name = path.join(folder, "a");
    await writeFile(name, 'one\n{"tor');
    const file = await openAppendFile(name);
    await file.append(Buffer.from("two\n"));
    expect(file.size).toBe(14);
    await file.close();
    expect(await readFile(name, "utf8")).toBe('one\n{"tor\ntwo\n');
  });

  test("takes back a part that was written before the disk was full", async () => {
    const name = path.join(folder, "a");
    const file = await openAppendFile(name);
    await file.append(Buffer.from("one\n"));
    const probe = await open(name);
    const handles = Object.getPrototypeOf(probe) as FileHandle;
    await probe.close();
    vi.spyOn(handles, "appendFile").mockImplementationOnce(async function (this: FileHandle, bytes) {
      await this.write(bytes.toString().slice(0, 2));
      throw new Error("no space left");
    });
    await expect(file.append(Buffer.from("two\n"))).rejects.toThrow("no space left");
    vi.restoreAllMocks();
    expect(await readFile(name, "utf8")).toBe("one\n");
    await file.append(Buffer.from("two\n"));
    expect(await readFile(name, "utf8")).toBe("one\ntwo\n");
    expect(file.size).toBe(8);
    await file.close();
  });

  test("is readable by its owner only", async () => {
    const name = path.join(folder, "a");
    await (await openAppendFile(name)).close();
    expect((await stat(name)).mode & 0o777).toBe(0o600);
  });

  test("refuses a symlink and leaves its target alone", async () => {
    const target = path.join(folder, "target");
    await writeFile(target, "mine");
    await symlink(target, path.join(folder, "a"));
    await expect(openAppendFile(path.join(folder, "a"))).rejects.toMatchObject({ code: "ELOOP" });
    expect(await readFile(target, "utf8")).toBe("mine");
  });

  test("notices that it has been deleted", async () => {
    const name = path.join(folder, "a");
    const file = await openAppendFile(name);
    expect(await file.isDeleted()).toBe(false);
    await unlink(name);
    expect(await file.isDeleted()).toBe(true);
    await file.close();
  });

  test("notices that it has been cut, as copytruncate does", async () => {
    const name = path.join(folder, "a");
    const file = await openAppendFile(name);
    await file.append(Buffer.from("one\n"));
    expect(await file.isDeleted()).toBe(false);
    await writeFile(name, "");
    expect(await file.isDeleted()).toBe(true);
    await file.close();
  });

  test.each([
    ["renamed", () => undefined],
    ["renamed, with a new one in its place", (name: string) => writeFile(name, "")],
    ["renamed, with a link to it in its place", (name: string) => symlink(`${name}.1`, name)],
  ])("D9: notices that it has been %s", async (_, next) => {
    const name = path.join(folder, "a");
    const file = await openAppendFile(name);
    await rename(name, `${name}.1`);
    await next(name);
    expect(await file.isDeleted()).toBe(true);
    await file.close();
  });
});
