import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { createPasswords } from "../../src/identity/passwords/password.ts";
import { runCommand } from "../../src/cli/command-line.ts";
import { AppError } from "../../src/errors.ts";
import { runUserCli } from "../../src/cli/user-commands.ts";
import { accountOf, until, useStore, useUsersDir } from "../identity/support.ts";
import { runCli } from "../support/cli.ts";

async function useCli(config = "") {
  const folder = await useUsersDir();
  await writeFile(join(folder, "config.toml"), config);
  const usersDir = join(folder, "users");
  const run = (args: string, stdin = "") => runCli(runUserCli, args.split(" ").filter(Boolean), folder, stdin);
  const text = (name: string) => readFile(join(usersDir, `${name}.toml`), "utf8");
  return { folder, usersDir, run, text };
}

describe("npm run user", () => {
  it("adds a user with a generated password, which it shows once and which proves right", async () => {
    const { usersDir, run } = await useCli();
    const { code, out, err } = await run("add bob --tier pro --role user --role admin --max-parallel 3");
    expect([code, err]).toEqual([0, ""]);
    const password = /shown only now\): (\S+)$/.exec(out)?.[1] ?? "";
    const { store } = await useStore(usersDir, { tierNames: () => ["pro"] });
    expect(accountOf(store, "bob")).toMatchObject({ quota_tier: "pro", roles: ["user", "admin"], max_parallel: 3 });
    const passwords = createPasswords({ maxHashes: 1, maxWaiting: 1 });
    expect(await passwords.matches(accountOf(store, "bob").password_hash, password)).toBe(true);
  });

  it("takes a password from standard input and never shows it", async () => {
    const { usersDir, run } = await useCli();
    const results = [
      await run("add bob --password-stdin", "planted-one\n"),
      await run("add bob --password-stdin", "planted-two\n"),
      await run("passwd bob --password-stdin", "planted\n"),
      await run("passwd bob --password-stdin", "planted-three\r\n"),
    ];
    expect(results.map(({ code }) => code)).toEqual([0, 1, 1, 0]);
    expect(JSON.stringify(results)).not.toContain("planted");
    const { store } = await useStore(usersDir);
    const passwords = createPasswords({ maxHashes: 1, maxWaiting: 1 });
    expect(await passwords.matches(accountOf(store, "bob").password_hash, "planted-three")).toBe(true);
  });

  it("disables and enables, and a running server notices", async () => {
    const { usersDir, run } = await useCli();
    await run("add bob");
    const { store } = await useStore(usersDir, { watch: true });
    expect((await run("disable bob")).code).toBe(0);
    await until(() => {
      expect(store.get("bob")?.is_active).toBe(false);
    });
    expect((await run("enable bob")).code).toBe(0);
    await until(() => {
      expect(store.get("bob")?.is_active).toBe(true);
    });
  });

  it("lists users, and names the files that have a problem", async () => {
    const { usersDir, run } = await useCli();
    await run("add zoe --tier pro");
    await run("add bob --role auditor");
    await run("disable bob");
    await writeFile(join(usersDir, "eve.toml"), 'username = "eve"\noops\n');
    const { code, out, err } = await run("list");
    expect(code).toBe(0);
    expect(out.split("\n").map((line) => line.split(/ +/))).toEqual([
      ["NAME", "TIER", "STATE", "ROLES"],
      ["bob", "basic", "disabled", "auditor"],
      ["zoe", "pro", "active", "user"],
    ]);
    expect(err).toMatch(/^warning: eve\.toml:2: Invalid TOML/);
  });

  it("finds the users where the config file says, by --config", async () => {
    const { folder, run } = await useCli();
    await writeFile(join(folder, "other.toml"), '[storage]\nusers_dir = "elsewhere"\n');
    expect((await run(`add bob --config ${join(folder, "other.toml")}`)).code).toBe(0);
    expect(await readFile(join(folder, "elsewhere", "bob.toml"), "utf8")).toContain('username = "bob"');
  });

  it.each([
    ["add ../x", /^error: A user name has 1 to 32 characters/],
    ["add bob --tier gold", /^error: quota_tier: expected a tier of config.toml: basic, pro, premium/],
    ["add bob --max-parallel many", /^error: max_parallel/],
    ["passwd nobody", /^error: There is no user "nobody"/],
    ["disable nobody", /^error: There is no user "nobody"/],
    ["add bob --expires-at tomorrow", /^error: expires_at: expected a date and time with an offset, such as 2026-/],
    ["list --config /nowhere/config.toml", /^error: .*\/nowhere\/config.toml/],
  ])("refuses %j with exit code 1 and the reason", async (args, reason) => {
    const { run } = await useCli();
    const { code, out, err } = await run(args);
    expect(code).toBe(1);
    expect(out).toBe("");
    expect(err).toMatch(reason);
  });

  it.each([
    "",
    "remove bob",
    "toString bob",
    "add",
    "add bob eve",
    "list bob",
    "add bob --colour red",
    "add bob --role king",
    "disable bob --until 2099-01-01T00:00:00Z",
    "ban bob --until 2099-01-01T00:00:00Z --tier pro",
    "ban bob --until 2001-01-01T00:00:00Z",
    "list --until 2099-01-01T00:00:00Z",
    "enable bob --password-stdin",
  ])("answers %j with exit code 2 and the usage", async (args) => {
    const { run } = await useCli();
    const { code, err } = await run(args);
    expect(code).toBe(2);
    expect(err).toMatch(/^Usage: npm run user.*\n\nerror: .*$/s);
  });

  it("refuses a password of several lines, which nobody could type", async () => {
    const { run, text } = await useCli();
    await run("add bob");
    const before = await text("bob");
    const { code, err } = await run("passwd bob --password-stdin", "a good password\nand more\n");
    expect(code).toBe(2);
    expect(err).toMatch(/error: expected one line on standard input, with the password$/);
    expect(await text("bob")).toBe(before);
  });

  it("makes no user and no password whose only copy would be lost because the audit log can't be written", async () => {
    const { folder, usersDir, run, text } = await useCli();
    await run("add bob");
    const before = await text("bob");
    await rm(join(folder, "logs"), { recursive: true });
    await writeFile(join(folder, "logs"), "no folder");
    for (const args of ["add eve", "reset-password bob", "passwd bob"]) {
      const { code, out, err } = await run(args);
      expect([code, out]).toEqual([1, ""]);
      expect(err).toMatch(/^error: The audit log can't be written, so nothing was changed\. E[A-Z]+: .*logs/);
    }
    expect(await text("bob")).toBe(before);
    expect(await readdir(usersDir)).not.toContain("eve.toml");
    // A change without a secret stands, and is said to.
    expect((await run("disable bob")).err).toMatch(/^error: The change was made, but .* E[A-Z]+: .*logs/);
  });

  it("says what the system said where a file can't be written", async () => {
    const cause = Object.assign(new Error("EACCES: permission denied, open 'users/eve.toml'"), { code: "EACCES" });
    const message = "The account could not be saved.";
    const err: string[] = [];
    const io = { err: (line: string) => err.push(line) };
    const code = await runCommand(io, "usage", () =>
      Promise.reject(new AppError("storage_unavailable", { message, cause })),
    );
    expect([code, err]).toEqual([1, [`error: ${message} ${cause.message}`]]);
  });

  it("shows the usage when asked for it", async () => {
    const { run } = await useCli();
    expect(await run("--help")).toMatchObject({ code: 0, err: "", out: expect.stringMatching(/^Usage/) });
  });
});
