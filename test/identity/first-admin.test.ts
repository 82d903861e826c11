import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { createFirstAdmin } from "../../src/identity/first-admin.ts";
import { accountOf, fakeHash, putUser, useStore, useUsersDir } from "./support.ts";

it("makes an admin with a random password where there is no user", async () => {
  const { store } = await useStore(await useUsersDir());
  const admin = await createFirstAdmin(store, ["basic", "premium"]);
  expect(admin?.password).toMatch(/^([a-hjkmnp-z2-9]{4}-){4}[a-hjkmnp-z2-9]{4}$/);
  expect(accountOf(store, "admin")).toMatchObject({
    password_hash: fakeHash(admin?.password ?? ""),
    quota_tier: "premium",
    roles: ["user", "admin"],
  });
  const other = await createFirstAdmin((await useStore(await useUsersDir())).store, ["basic"]);
  expect(other?.password).not.toBe(admin?.password);
});

it("takes the first tier where none is called premium", async () => {
  const { store } = await useStore(await useUsersDir(), { tierNames: () => ["free", "paid"] });
  await createFirstAdmin(store, ["free", "paid"]);
  expect(accountOf(store, "admin").quota_tier).toBe("free");
});

it("is made by one of several processes that start at once", async () => {
  const { store } = await useStore(await useUsersDir());
  const made = await Promise.all(Array.from({ length: 3 }, () => createFirstAdmin(store, ["basic"])));
  expect(made.filter((admin) => admin !== undefined)).toHaveLength(1);
});

it("makes none beside a user, not even beside a file that could not be read", async () => {
  const [withUser, withBroken] = [await useUsersDir(), await useUsersDir()];
  await putUser(withUser, "bob");
  await writeFile(join(withBroken, "bob.toml"), "= broken");
  for (const dir of [withUser, withBroken]) {
    const { store } = await useStore(dir);
    expect(await createFirstAdmin(store, ["basic"])).toBeUndefined();
    expect(store.get("admin")).toBeUndefined();
  }
});
