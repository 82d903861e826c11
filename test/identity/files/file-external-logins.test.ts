import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { loginId } from "../../../src/identity/external-logins.ts";
import { openFileExternalLogins } from "../../../src/identity/files/file-external-logins.ts";
import { createCapturedLog } from "../../support/captured-log.ts";
import { tempDir } from "../../support/temp-dir.ts";

const issuer = "https://id.example";
const [sound, damaged] = [
  { issuer, sub: "1" },
  { issuer, sub: "2" },
];
const unreadable = { code: "storage_unavailable", message: expect.stringContaining("cannot be read") as string };

async function open() {
  const usersDir = tempDir();
  const log = createCapturedLog();
  const logins = await openFileExternalLogins({ usersDir, log });
  onTestFinished(() => logins.close());
  const file = (name: string): string => join(usersDir, "logins", `${name}.json`);
  const named = () => [...new Set(log.lines.map(({ facts }) => facts.file))];
  return { logins, file, named };
}

it("a damaged link lets nobody in, is named in the log, and stands in the way of nothing else", async () => {
  const { logins, file, named } = await open();
  for (const login of [sound, damaged]) await logins.link({ ...login, user: "alice", linkedAt: 1 });
  const broken = file(loginId(damaged));
  for (const text of ["", '{"issuer":"https://id.ex', "[]", '{"issuer":1}']) {
    await writeFile(broken, text);
    await expect(logins.get(damaged)).rejects.toMatchObject(unreadable);
    await expect(logins.link({ ...damaged, user: "bob", linkedAt: 2 })).rejects.toMatchObject(unreadable);
    expect(await logins.ofUser("alice")).toMatchObject([sound]);
    expect(await logins.get(sound)).toMatchObject({ user: "alice" });
    expect(await readFile(broken, "utf8")).toBe(text);
  }
  // The user can be archived.
  await logins.unlinkAll("alice");
  expect(await logins.get(sound)).toBeUndefined();
  expect(named()).toEqual([`logins/${loginId(damaged)}.json`]);
});

it("a damaged list of a user's links hides them, and is not written over", async () => {
  const { logins, file, named } = await open();
  await mkdir(join(file("linked"), "..", "linked"), { recursive: true });
  await writeFile(file("linked/alice"), '["');
  await expect(logins.link({ ...sound, user: "alice", linkedAt: 1 })).rejects.toMatchObject(unreadable);
  expect(await logins.ofUser("alice")).toEqual([]);
  expect(await logins.unlink("alice", sound)).toBe(false);
  expect(await readFile(file("linked/alice"), "utf8")).toBe('["');
  expect(named()).toEqual(["logins/linked/alice.json"]);
  await logins.unlinkAll("alice");
  await logins.link({ ...sound, user: "alice", linkedAt: 1 });
  expect(await logins.ofUser("alice")).toMatchObject([sound]);
});
