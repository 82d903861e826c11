import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { diskOps, type FileOps } from "../../../src/lib/files/file-ops.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { accountOf, fakeHash, putUser, userText, useStore, useUsersDir } from "../support.ts";

async function useBob(lines?: string) {
  const usersDir = await useUsersDir();
  await putUser(usersDir, "bob", lines);
  const clock = createManualClock(Date.UTC(2026, 10, 22));
  return { usersDir, clock, ...(await useStore(usersDir, { clock })) };
}

describe("update", () => {
  it("changes what the patch names and no other byte", async () => {
    const { usersDir, store } = await useBob("max_parallel = 3 # a lot\n# the end\n");
    const before = await userText(usersDir, "bob");
    await store.update("bob", { quota_tier: "premium" });
    expect(await userText(usersDir, "bob")).toBe(before.replace('"basic"', '"premium"'));
    await store.update("bob", { max_parallel: null });
    expect(accountOf(store, "bob").max_parallel).toBeUndefined();
    expect(accountOf(store, "bob").quota_tier).toBe("premium");
  });

  it("merges with an edit made by hand since the file was read", async () => {
    const { usersDir, store } = await useBob();
    await putUser(usersDir, "bob", '# by hand\nroles = ["user", "auditor"]\n');
    await store.update("bob", { quota_tier: "premium" });
    expect(accountOf(store, "bob")).toMatchObject({ quota_tier: "premium", roles: ["user", "auditor"] });
    expect(await userText(usersDir, "bob")).toContain("# by hand\n");
  });

  it("hashes a plaintext password found on the way instead of losing it", async () => {
    const { usersDir, store } = await useBob();
    await writeFile(join(usersDir, "bob.toml"), 'username = "bob"\npassword = "by hand!"\nquota_tier = "basic"\n');
    await store.update("bob", { quota_tier: "premium" });
    expect(accountOf(store, "bob").password_hash).toBe(fakeHash("by hand!"));
    expect(await userText(usersDir, "bob")).not.toContain("by hand!");
  });

  it("runs parallel updates of one user one after the other, losing none", async () => {
    const { store } = await useBob();
    await Promise.all([
      store.update("bob", { quota_tier: "premium" }),
      store.update("bob", { max_parallel: 7 }),
      store.update("bob", { roles: ["admin"] }),
      store.update("bob", { metadata: { a: 1 } }),
    ]);
    expect(accountOf(store, "bob")).toMatchObject({
      quota_tier: "premium",
      max_parallel: 7,
      roles: ["admin"],
      metadata: { a: 1 },
    });
  });

  it("ends the tokens of an old password and of a disabled user, and of nothing else", async () => {
    const { store, clock } = await useBob();
    const version = () => accountOf(store, "bob").token_version;
    await store.update("bob", { quota_tier: "premium" });
    expect(version()).toBe(0);
    await store.update("bob", { password: "another one" });
    expect(version()).toBe(clock.now());
    await store.update("bob", { is_active: false });
    expect(version()).toBe(clock.now() + 1);
    await store.update("bob", { is_active: false });
    await store.update("bob", { is_active: true });
    expect(version()).toBe(clock.now() + 1);
  });

  describe.each(["write", "fsync", "close"] as const)(
    "beside an edit that comes at %s, while it is on its way to the disk",
    (step) => {
      /** A disk on which somebody edits bob.toml by hand at that step, so many times. */
      function diskWithEdits(usersDir: string, edit: (count: number) => string, times = 1): FileOps {
        let count = 0;
        const withEdit = <A extends readonly unknown[], R>(work: (...args: A) => Promise<R>) => {
          return async (...args: A): Promise<R> => {
            if (count < times) await putUser(usersDir, "bob", edit(++count));
            return work(...args);
          };
        };
        return {
          ...diskOps,
          ...(step === "write" ? { write: withEdit(diskOps.write) } : {}),
          ...(step === "fsync" ? { fsync: withEdit(diskOps.fsync) } : {}),
          ...(step === "close" ? { close: withEdit(diskOps.close) } : {}),
        };
      }

      it("loses neither of the two", async () => {
        const usersDir = await useUsersDir();
        await putUser(usersDir, "bob");
        const fileOps = diskWithEdits(usersDir, () => "is_active = false # by hand\n");
        const { store } = await useStore(usersDir, { fileOps });
        expect(await store.update("bob", { max_parallel: 7 })).toMatchObject({ max_parallel: 7, is_active: false });
        expect(await userText(usersDir, "bob")).toMatch(
          /is_active = false # by hand[^]*max_parallel = 7|max_parallel = 7[^]*# by hand/,
        );
      });

      it("says so where the edits don't end, and leaves no temporary file", async () => {
        const usersDir = await useUsersDir();
        await putUser(usersDir, "bob");
        const fileOps = diskWithEdits(usersDir, (count) => `max_parallel = ${count + 10}\n`, 100);
        const { store } = await useStore(usersDir, { fileOps });
        await expect(store.update("bob", { roles: ["auditor"] })).rejects.toMatchObject({ code: "conflict" });
        expect(accountOf(store, "bob").roles).toEqual(["user"]);
        expect(await readdir(usersDir)).toEqual(["bob.toml"]);
      });
    },
  );

  it("refuses an unknown user, a wrong value and a file that is broken", async () => {
    const { usersDir, store } = await useBob();
    await expect(store.update("eve", { is_active: false })).rejects.toMatchObject({ code: "not_found" });
    await expect(store.update("../bob", { is_active: false })).rejects.toMatchObject({ code: "invalid_request" });
    await expect(store.update("bob", { quota_tier: "gold" })).rejects.toMatchObject({
      code: "invalid_request",
      extras: { param: "quota_tier" },
    });
    await expect(store.update("bob", { metadata: { a: "\ud800" } })).rejects.toMatchObject({ code: "invalid_request" });
    await writeFile(join(usersDir, "bob.toml"), "broken = = 1\n");
    await expect(store.update("bob", { is_active: false })).rejects.toMatchObject({ code: "conflict" });
    expect(await userText(usersDir, "bob")).toBe("broken = = 1\n");
    expect(accountOf(store, "bob").is_active).toBe(true);
  });
});

describe.each(["open", "write", "fsync", "rename"] as const)("a disk on which %s fails", (step) => {
  const fail = () => Promise.reject(Object.assign(new Error("ENOSPC: no space left"), { code: "ENOSPC" }));

  it("leaves the old file and the old account, and the next change works again", async () => {
    const usersDir = await useUsersDir();
    await putUser(usersDir, "bob");
    const fileOps: FileOps = { ...diskOps, [step]: fail };
    const { store } = await useStore(usersDir, { fileOps });
    const before = await userText(usersDir, "bob");
    await expect(store.update("bob", { is_active: false })).rejects.toMatchObject({ code: "storage_unavailable" });
    await expect(
      store.create({ username: "eve", password: "correct horse", quota_tier: "basic" }),
    ).rejects.toMatchObject({ code: "storage_unavailable", status: 503 });
    expect(await userText(usersDir, "bob")).toBe(before);
    expect(accountOf(store, "bob").is_active).toBe(true);
    expect(await readdir(usersDir)).toEqual(["bob.toml"]);
    Object.assign(fileOps, diskOps); // There is room again.
    expect(await store.update("bob", { is_active: false })).toMatchObject({ is_active: false });
  });
});

describe("rehash", () => {
  it("replaces the hash without ending the tokens, unless the password has been changed", async () => {
    const { store } = await useBob();
    const stronger = fakeHash("correct horse", "m=65536,t=3,p=1");
    await store.rehash("bob", fakeHash("correct horse"), stronger);
    expect(accountOf(store, "bob")).toMatchObject({ password_hash: stronger, token_version: 0 });
    await store.rehash("bob", fakeHash("correct horse"), fakeHash("older"));
    expect(accountOf(store, "bob").password_hash).toBe(stronger);
  });
});

describe("onChange", () => {
  it("tells of each change once, until it is stopped", async () => {
    const { store } = await useBob();
    const told: string[] = [];
    const stop = store.onChange((name, account) => told.push(`${name} ${account?.quota_tier ?? "gone"}`));
    await store.update("bob", { quota_tier: "premium" });
    await store.update("bob", { quota_tier: "premium" });
    expect(told).toEqual(["bob premium"]);
    stop();
    await store.update("bob", { quota_tier: "basic" });
    expect(told).toHaveLength(1);
  });
});
