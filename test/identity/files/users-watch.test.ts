import { rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { accountOf, fakeHash, putUser, until, userText, useStore, useUsersDir } from "../support.ts";

const plaintext = 'username = "bob" # him\npassword = "by hand!"\nquota_tier = "basic"\n';

/** By events of the file system alone, and by looking now and then alone. */
describe.each([
  ["told by the system", { watch: true, rescanMs: 3_600_000 }],
  ["looking now and then", { watch: true, rescanMs: 20, debounceMs: 3_600_000 }],
])("a running store, %s", (_how, options) => {
  it("notices a new, an edited and a deleted file", async () => {
    const usersDir = await useUsersDir();
    const { store } = await useStore(usersDir, options);
    await putUser(usersDir, "bob");
    await until(() => {
      expect(store.get("bob")?.is_active).toBe(true);
    });
    await putUser(usersDir, "bob", "is_active = false\n");
    await until(() => {
      expect(store.get("bob")?.is_active).toBe(false);
    });
    await rm(join(usersDir, "bob.toml"));
    await until(() => {
      expect(store.get("bob")).toBeUndefined();
    });
  });

  it("notices a file that an editor puts in place by renaming", async () => {
    const usersDir = await useUsersDir();
    await putUser(usersDir, "bob");
    const { store } = await useStore(usersDir, options);
    await writeFile(join(usersDir, "draft~"), (await userText(usersDir, "bob")).replace("basic", "premium"));
    await rename(join(usersDir, "draft~"), join(usersDir, "bob.toml"));
    await until(() => {
      expect(store.get("bob")?.quota_tier).toBe("premium");
    });
  });

  it("hashes a plaintext password put into a file, and ends the old tokens", async () => {
    const usersDir = await useUsersDir();
    await putUser(usersDir, "bob");
    const { store } = await useStore(usersDir, options);
    await writeFile(join(usersDir, "bob.toml"), plaintext);
    await until(() => {
      expect(store.get("bob")?.password_hash).toBe(fakeHash("by hand!"));
    });
    expect(accountOf(store, "bob").token_version).toBeGreaterThan(0);
    const text = await userText(usersDir, "bob");
    expect(text).toContain("# him");
    expect(text).not.toContain("by hand!");
  });

  it("keeps the last good version of a file that breaks, lists it, and forgets the problem when it is mended", async () => {
    const usersDir = await useUsersDir();
    await putUser(usersDir, "bob");
    const { store, log } = await useStore(usersDir, options);
    await putUser(usersDir, "bob", "is_active = flase\n");
    await until(() => {
      expect(store.problems()).toEqual([expect.objectContaining({ file: "bob.toml", line: 4 })]);
    });
    expect(accountOf(store, "bob").is_active).toBe(true);
    expect(log.lines.filter(({ level }) => level === "error")).toHaveLength(1);
    await putUser(usersDir, "bob", "is_active = false\n");
    await until(() => {
      expect(store.problems()).toEqual([]);
    });
    expect(accountOf(store, "bob").is_active).toBe(false);
  });
});

describe("edits by hand", () => {
  it.each([
    ["another hash", (text: string) => text.replace(fakeHash("correct horse"), fakeHash("other"))],
    ["is_active = false", (text: string) => `${text}is_active = false\n`],
    ["a lower token_version", (text: string) => text.replace("token_version = 5", "token_version = 4")],
  ])("end the tokens of before: %s", async (_what, edit) => {
    const usersDir = await useUsersDir();
    await putUser(usersDir, "bob", "token_version = 5\n");
    const { store } = await useStore(usersDir, { watch: true });
    await writeFile(join(usersDir, "bob.toml"), edit(await userText(usersDir, "bob")));
    await until(() => {
      expect(store.get("bob")?.token_version).toBeGreaterThan(5);
    });
    expect(await userText(usersDir, "bob")).toContain(`token_version = ${accountOf(store, "bob").token_version}`);
  });

  it("leave the tokens of before alone where they have no reason to end", async () => {
    const usersDir = await useUsersDir();
    await putUser(usersDir, "bob", "token_version = 5\n");
    const { store } = await useStore(usersDir, { watch: true });
    const text = (await userText(usersDir, "bob")).replace("basic", "premium");
    await writeFile(join(usersDir, "bob.toml"), text);
    await until(() => {
      expect(store.get("bob")?.quota_tier).toBe("premium");
    });
    expect(accountOf(store, "bob").token_version).toBe(5);
    expect(await userText(usersDir, "bob")).toBe(text);
  });

  it("are not overwritten when they come while a password is being hashed", async () => {
    const usersDir = await useUsersDir();
    await writeFile(join(usersDir, "bob.toml"), plaintext);
    let edited = false;
    const { store } = await useStore(usersDir, {
      hashPassword: async (password) => {
        if (!edited) await writeFile(join(usersDir, "bob.toml"), plaintext.replace("by hand!", "second thought"));
        edited = true;
        return fakeHash(password);
      },
    });
    expect(accountOf(store, "bob").password_hash).toBe(fakeHash("second thought"));
    expect(await userText(usersDir, "bob")).toContain(fakeHash("second thought"));
  });

  it("of one store are seen by another on the same folder, without a bump of its own", async () => {
    const usersDir = await useUsersDir();
    await putUser(usersDir, "bob");
    const { store: server } = await useStore(usersDir, { watch: true });
    const { store: commandLine } = await useStore(usersDir);
    const changed = await commandLine.update("bob", { password: "a new one" });
    await until(() => {
      expect(server.get("bob")).toEqual(changed);
    });
    expect(await userText(usersDir, "bob")).toContain(`token_version = ${changed.token_version}\n`);
  });
});

it("tells nobody of its own writes a second time", async () => {
  const usersDir = await useUsersDir();
  await putUser(usersDir, "bob");
  const { store } = await useStore(usersDir, { watch: true });
  const told: string[] = [];
  store.onChange((name) => told.push(name));
  await store.update("bob", { quota_tier: "premium" });
  const account = accountOf(store, "bob");
  // A change of another file comes after the events of our own write.
  await putUser(usersDir, "zoe");
  await until(() => {
    expect(told).toContain("zoe");
  });
  expect(told).toEqual(["bob", "zoe"]);
  expect(store.get("bob")).toBe(account);
});
