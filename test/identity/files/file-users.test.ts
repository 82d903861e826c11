import { anyText, fc } from "../../support/fast-check.ts";
import { chown, mkdir, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { TomlDate } from "smol-toml";
import { describe, expect, it } from "vitest";
import type { Metadata } from "../../../src/identity/user-fields.ts";
import { diskOps, type FileOps } from "../../../src/lib/files/file-ops.ts";
import { accountOf, fakeHash, putUser, userText, useStore, useUsersDir } from "../support.ts";

const newBob = { username: "bob", password: "correct horse", quota_tier: "basic" };

describe("loading", () => {
  it("needs no more than a name, a password and a tier", async () => {
    const usersDir = await useUsersDir();
    await putUser(usersDir, "bob");
    const { store } = await useStore(usersDir);
    expect(store.get("bob")).toEqual({
      username: "bob",
      password_hash: fakeHash("correct horse"),
      quota_tier: "basic",
      roles: ["user"],
      is_active: true,
      token_version: 0,
      metadata: {},
    });
    expect(store.get("eve")).toBeUndefined();
    expect(store.get("__proto__")).toBeUndefined();
    expect(store.problems()).toEqual([]);
  });

  it("hashes a plaintext password and keeps the rest of the file, comments and all", async () => {
    const usersDir = await useUsersDir();
    const text = `# ours\nusername = "bob"\npassword = "correct horse"\nquota_tier = "basic" # for now\n\n[metadata]\nx = 1\n`;
    await writeFile(join(usersDir, "bob.toml"), text);
    const { store } = await useStore(usersDir);
    expect(accountOf(store, "bob")).toMatchObject({ password_hash: fakeHash("correct horse"), metadata: { x: 1 } });
    const written = await userText(usersDir, "bob");
    expect(written).not.toContain("correct horse");
    expect(written.replace(/^token_version = \d+\n/m, "")).toBe(
      text.replace('password = "correct horse"', `password_hash = "${fakeHash("correct horse")}"`),
    );
    expect((await stat(join(usersDir, "bob.toml"))).mode & 0o777).toBe(0o600);
    expect((await readdir(usersDir)).sort()).toEqual(["bob.toml"]);
  });

  it("loads the good files beside bad ones, lists the bad ones and overwrites none", async () => {
    const usersDir = await useUsersDir();
    const file = (name: string) => `username = "${name}"\npassword = "correct horse"\nquota_tier = "basic"\n`;
    const bad: Record<string, string> = {
      "syntax.toml": `username = "syntax"\npassword = "tell nobody" oops\n`,
      "unknown.toml": `${file("unknown")}qouta = 1\n`,
      "other.toml": file("someone"),
      "Upper.toml": file("Upper"),
      "con.toml": file("con"),
      "tier.toml": file("tier").replace("basic", "gold"),
      "short.toml": file("short").replace("correct horse", "x"),
      "nothing.toml": `username = "nothing"\nquota_tier = "basic"\n`,
      "hash.toml": `username = "hash"\npassword_hash = "$2b$10$abc"\nquota_tier = "basic"\n`,
      "empty.toml": "",
    };
    for (const [name, text] of Object.entries(bad)) await writeFile(join(usersDir, name), text);
    await writeFile(join(usersDir, "bytes.toml"), Buffer.from([0x61, 0xff, 0xfe]));
    await mkdir(join(usersDir, "folder.toml"));
    await putUser(usersDir, "bob");
    await putUser(usersDir, "zoe");

    const hashPassword = (password: string) =>
      password.length < 8 ? Promise.reject(new Error("too short")) : Promise.resolve(fakeHash(password));
    const { store, log } = await useStore(usersDir, { hashPassword });
    expect(
      store
        .list()
        .map(({ username }) => username)
        .sort(),
    ).toEqual(["bob", "zoe"]);
    const reasons = new Map(store.problems().map(({ file, reason, line }) => [file, `${line ?? "-"} ${reason}`]));
    expect([...reasons.keys()].sort()).toEqual([...Object.keys(bad), "bytes.toml", "folder.toml"].sort());
    expect(reasons.get("syntax.toml")).toMatch(/^2 Invalid TOML/);
    expect(reasons.get("unknown.toml")).toMatch(/qouta/);
    expect(reasons.get("other.toml")).toMatch(/expected "other"/);
    expect(reasons.get("tier.toml")).toMatch(/quota_tier: expected a tier of config.toml: basic, premium/);
    expect(reasons.get("nothing.toml")).toMatch(/password or a password_hash/);
    expect(reasons.get("bytes.toml")).toMatch(/UTF-8/);

    const logged = JSON.stringify(log.lines);
    for (const name of reasons.keys()) expect(logged).toContain(name);
    expect(logged).not.toContain("tell nobody");
    expect(JSON.stringify(store.problems())).not.toContain("tell nobody");
    for (const [name, text] of Object.entries(bad)) expect(await readFile(join(usersDir, name), "utf8")).toBe(text);
  });

  it("refuses a symlink and leaves its target alone", async () => {
    const [usersDir, outside] = [await useUsersDir(), await useUsersDir()];
    await putUser(outside, "bob");
    const before = await userText(outside, "bob");
    await symlink(join(outside, "bob.toml"), join(usersDir, "bob.toml"));
    const { store } = await useStore(usersDir);
    expect(store.get("bob")).toBeUndefined();
    expect(store.problems()).toEqual([
      expect.objectContaining({ file: "bob.toml", reason: expect.stringMatching(/symb/) }),
    ]);
    await expect(store.create(newBob)).rejects.toMatchObject({ code: "conflict" });
    await expect(store.update("bob", { is_active: false })).rejects.toMatchObject({ code: "conflict" });
    expect(await userText(outside, "bob")).toBe(before);
  });

  it("takes neither quota records nor hidden files for users", async () => {
    const usersDir = await useUsersDir();
    await putUser(usersDir, "bob");
    await writeFile(join(usersDir, "bob.quota.toml"), "not = an account");
    await writeFile(join(usersDir, ".bob.toml.0123456789abcdef.tmp"), "half");
    const { store } = await useStore(usersDir);
    expect(store.list()).toHaveLength(1);
    expect(store.problems()).toEqual([]);
  });

  it("uses the hash in memory and says so loudly where it cannot rewrite the file", async () => {
    const usersDir = await useUsersDir();
    await writeFile(join(usersDir, "bob.toml"), 'username = "bob"\npassword = "correct horse"\nquota_tier = "basic"\n');
    const { store, log } = await useStore(usersDir, { fileOps: readOnlyDisk });
    expect(accountOf(store, "bob").password_hash).toBe(fakeHash("correct horse"));
    expect(store.problems()).toEqual([expect.objectContaining({ reason: expect.stringMatching(/EROFS.*PLAINTEXT/) })]);
    expect(JSON.stringify(log.lines)).toMatch(/PLAINTEXT/);
    expect(await readdir(usersDir)).toEqual(["bob.toml"]);
  });
});

/** Reads, and fails to write. */
const readOnlyDisk: FileOps = {
  ...diskOps,
  open: () => Promise.reject(Object.assign(new Error("EROFS: read-only file system"), { code: "EROFS" })),
};

describe("create", () => {
  it("makes a file that loads again as the same account", async () => {
    const usersDir = await useUsersDir();
    const { store } = await useStore(usersDir);
    const metadata: Metadata = { team: 'a"b\n= [x]', since: new TomlDate("2026-01-02"), tags: ["x", 1, true] };
    const made = await store.create({ ...newBob, roles: ["user", "admin"], max_parallel: 4, metadata });
    expect(made).toMatchObject({
      username: "bob",
      roles: ["user", "admin"],
      max_parallel: 4,
      is_active: true,
      metadata,
    });
    expect(store.get("bob")).toBe(made);
    expect((await stat(join(usersDir, "bob.toml"))).mode & 0o777).toBe(0o600);
    expect(await readdir(usersDir)).toEqual(["bob.toml"]);
    const again = await useStore(usersDir);
    expect(again.store.get("bob")).toEqual(made);
  });

  it.skipIf(process.getuid?.() !== 0)("gives the file to the folder's owner where root makes it", async () => {
    const usersDir = await useUsersDir();
    await chown(usersDir, 1234, 1234);
    const { store } = await useStore(usersDir);
    await store.create(newBob);
    expect(await stat(join(usersDir, "bob.toml"))).toMatchObject({ uid: 1234, gid: 1234 });
    await store.update("bob", { is_active: false });
    expect(await stat(join(usersDir, "bob.toml"))).toMatchObject({ uid: 1234, gid: 1234 });
  });

  it("lets one of several creators win, in this process and in another", async () => {
    const usersDir = await useUsersDir();
    const { store: one } = await useStore(usersDir);
    const { store: two } = await useStore(usersDir);
    const tries = [one, two, one, two].map((store, index) =>
      store.create({ ...newBob, password: `password ${index}` }).then(
        (account) => account.password_hash,
        (error: unknown) => error,
      ),
    );
    const results = await Promise.all(tries);
    const winners = results.filter((result) => typeof result === "string");
    expect(winners).toHaveLength(1);
    expect(results.filter((result) => (result as { code?: string }).code === "conflict")).toHaveLength(3);
    expect(await userText(usersDir, "bob")).toContain(winners[0]);
    expect(await readdir(usersDir)).toEqual(["bob.toml"]);
  });

  it.each([
    [{ username: "../x" }, "username"],
    [{ username: "Admin" }, "username"],
    [{ quota_tier: "gold" }, "quota_tier"],
    [{ max_parallel: 0 }, "max_parallel"],
    [{ roles: [] }, "roles"],
    [{ metadata: { a: "\ud800" } }, "metadata"],
    [{ metadata: { a: null } as unknown as Metadata }, "metadata"],
  ])("refuses %j and writes nothing", async (wrong, param) => {
    const usersDir = await useUsersDir();
    const { store } = await useStore(usersDir);
    await expect(store.create({ ...newBob, ...wrong })).rejects.toMatchObject({
      code: "invalid_request",
      extras: { param },
    });
    expect(await readdir(usersDir)).toEqual([]);
  });

  it("brings any metadata back as it was", async () => {
    const usersDir = await useUsersDir();
    const text = anyText();
    const scalar = fc.oneof(
      text,
      fc.constantFrom('"', "'''", '"""', "\\", "\n[x]\n", "a = 1", "#", "\0", "\u007f", "\ufeff", "\r\n", "__proto__"),
      fc.integer(),
      fc.bigInt({ min: 2n ** 53n, max: 2n ** 63n - 1n }),
      fc.double(),
      fc.boolean(),
      fc.date({ noInvalidDate: true, min: new Date("1000-01-01"), max: new Date("9999-01-01") }),
    );
    const { value } = fc.letrec((tie) => ({
      value: fc.oneof({ maxDepth: 3 }, scalar, fc.array(tie("value")), fc.dictionary(text, tie("value"))),
    }));
    let count = 0;
    const { store } = await useStore(usersDir);
    await fc.assert(
      fc.asyncProperty(fc.dictionary(text, value), async (input) => {
        const metadata = input as Metadata;
        const username = `u${count++}`;
        await store.create({ ...newBob, username, metadata });
        expect(plain(accountOf(store, username).metadata)).toEqual(plain(metadata));
        await store.update(username, { metadata: { before: true } });
        await store.update(username, { metadata });
        await store.update(username, { quota_tier: "premium" });
        expect(plain(accountOf(store, username).metadata)).toEqual(plain(metadata));
      }),
      { numRuns: 40 },
    );
    const { store: again } = await useStore(usersDir);
    expect(again.problems()).toEqual([]);
    for (const { username, metadata } of again.list()) {
      expect(plain(metadata)).toEqual(plain(accountOf(store, username).metadata));
    }
  });
});

/** The same values without prototypes and TOML's kinds of dates; 1.0 and 1 are one number, 0 and -0 too. */
function plain(value: unknown): unknown {
  if (value instanceof Date) return { date: value.getTime() };
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === "object" && value !== null) {
    return new Map(Object.entries(value).map(([key, inner]) => [key, plain(inner)]));
  }
  return value === 0 ? 0 : value;
}
