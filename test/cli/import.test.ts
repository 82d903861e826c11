import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { createPasswords } from "../../src/identity/passwords/password.ts";
import { parseToml } from "../../src/identity/files/toml-edit.ts";
import { runImportCli } from "../../src/cli/import-commands.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { acquireLock } from "../../src/lib/files/lock-file.ts";
import { createProcessTable } from "../../src/lib/files/lock-owner.ts";
import { runCli } from "../support/cli.ts";
import { monthly, openTestLedger, usedOf } from "../support/ledger.ts";
import { tempDir } from "../support/temp-dir.ts";

const dayMs = 86_400_000;
const inDays = (days: number) => new Date(Date.now() + days * dayMs).toISOString();

/** The predecessor's folder, and ours, empty. */
function useFolders(users: Record<string, string>, quotas: Record<string, unknown> = {}) {
  const folder = tempDir();
  const old = join(folder, "old");
  mkdirSync(join(old, "data", "users"), { recursive: true });
  mkdirSync(join(old, "data", "quotas"));
  for (const [file, text] of Object.entries(users)) writeFileSync(join(old, "data", "users", `${file}.toml`), text);
  for (const [file, quota] of Object.entries(quotas)) {
    const text = typeof quota === "string" ? quota : JSON.stringify(quota);
    writeFileSync(join(old, "data", "quotas", `${file}.json`), text);
  }
  writeFileSync(join(folder, "config.toml"), "");
  const usersDir = join(folder, "users");
  return {
    old,
    usersDir,
    run: (...argv: string[]) => runCli(runImportCli, ["old", ...argv], folder),
    account: (name: string) => parseToml(readFileSync(join(usersDir, `${name}.toml`), "utf8")),
    async used(name: string) {
      const ledger = await openTestLedger(usersDir, systemClock);
      const [used] = usedOf(ledger, [monthly(500)], name);
      await ledger.close();
      return used;
    },
  };
}

function user(username: string, rest = "", password = `the password of ${username}`): string {
  return `username = "${username}"\npassword = "${password}"\nquota_tier = "basic"\n${rest}`;
}

function quota(username: string, rest: object = {}): object {
  return { username, tier: "basic", monthly_limit: 500, used_count: 123, reset_at: inDays(10), ...rest };
}

/** The accounts that there are. */
function accounts(usersDir: string): string[] {
  return readdirSync(usersDir).filter((name) => /^[^.]+\.toml$/.test(name));
}

describe("npm run import", () => {
  it("says what would happen and changes nothing without --apply", async () => {
    const { run, usersDir } = useFolders({ anna: user("anna") }, { anna: quota("anna") });
    const { code, out, err } = await run();
    expect([code, err]).toEqual([0, ""]);
    expect(out).toMatch(/^anna +basic +123 {2}is made$/m);
    expect(out).toContain("Nothing has been changed. Add --apply to do it.");
    expect(out).not.toContain("password of");
    expect(() => readdirSync(usersDir)).toThrow(/ENOENT/);
  });

  it("makes the accounts with hashed passwords, what was used, own limits, and all else as metadata", async () => {
    const { run, account, used } = useFolders(
      {
        anna: user("anna", 'email = "a@example.org"\ncreated_at = 2025-03-01T08:00:00+08:00\napi_token = "secret"\n'),
        ben: user("ben", "is_active = false\n"),
      },
      { anna: quota("anna", { monthly_limit: 777 }), ben: quota("ben", { used_count: 0 }) },
    );
    const { code, out, err } = await run("--apply");
    expect([code, err]).toEqual([0, ""]);
    expect(out).toMatch(/keeps a limit of 777 requests a month.*\n.*\nanna is imported\.\nben is imported\.$/);
    const anna = account("anna");
    expect(anna).toMatchObject({
      quota_tier: "basic",
      is_active: true,
      limits: [{ metric: "requests", per: "month", max: 777 }],
      metadata: { email: "a@example.org" },
    });
    expect(Object.keys(anna.metadata as object)).toEqual(["email", "created_at"]);
    expect(anna).not.toHaveProperty("password");
    const passwords = createPasswords({ maxHashes: 1, maxWaiting: 1 });
    expect(await passwords.matches(String(anna.password_hash), "the password of anna")).toBe(true);
    expect(await used("anna")).toBe(123);
    expect(account("ben")).toMatchObject({ is_active: false });
    expect(account("ben")).not.toHaveProperty("limits");
    expect(await used("ben")).toBe(0);
  });

  it("changes nothing when it is run again", async () => {
    const { run, usersDir, used } = useFolders({ anna: user("anna") }, { anna: quota("anna") });
    await run("--apply");
    const before = readFileSync(join(usersDir, "anna.toml"));
    const { code, out } = await run("--apply");
    expect(code).toBe(0);
    expect(out).toMatch(/^anna .*exists already: left as it is$/m);
    expect(readFileSync(join(usersDir, "anna.toml"))).toEqual(before);
    expect(await used("anna")).toBe(123);
  });

  it("counts once where it was killed between the count and the account", async () => {
    const { run, usersDir, used } = useFolders({ anna: user("anna") }, { anna: quota("anna") });
    await run("--apply");
    rmSync(join(usersDir, "anna.toml"));
    expect((await run("--apply")).code).toBe(0);
    expect(accounts(usersDir)).toEqual(["anna.toml"]);
    expect(await used("anna")).toBe(123);
  });

  it("prints a password before it is in force, so that none is lost where it is killed between the two", async () => {
    const { old, usersDir } = useFolders({ anna: user("anna", "", "short") });
    const printed: boolean[] = [];
    const code = await runImportCli(["old", "--apply"], {
      env: {},
      cwd: join(old, ".."),
      user: "tester",
      processes: createProcessTable({ pid: process.pid, host: hostname(), exists: () => true }),
      readStdin: () => Promise.resolve(""),
      out: (line) => {
        if (line.includes("shown only now")) printed.push(existsSync(join(usersDir, "anna.toml")));
      },
      outPieces: () => Promise.resolve(),
      err: () => undefined,
    });
    expect([code, printed, accounts(usersDir)]).toEqual([0, [false], ["anna.toml"]]);
  });

  it("overwrites no account, and no file that might be one", async () => {
    const { run, usersDir } = useFolders({ anna: user("anna") }, { anna: quota("anna") });
    mkdirSync(usersDir);
    writeFileSync(join(usersDir, "anna.toml"), "oops");
    expect((await run("--apply")).code).toBe(0);
    expect(readFileSync(join(usersDir, "anna.toml"), "utf8")).toBe("oops");
    expect(readdirSync(usersDir)).not.toContain("anna.quota.toml");
  });

  it.each([
    ["over since yesterday", inDays(-1), 0],
    ["over, without an offset", "2025-12-01 00:00:00", 0],
    ["far away, without an offset", "2099-01-01T00:00:00", 123],
    ["far away, a date alone", "2099-01-01", 123],
    ["not told", null, 123],
  ])("counts what was used only while the predecessor's month runs: %s", async (_, reset_at, expected) => {
    const { run, used } = useFolders({ anna: user("anna") }, { anna: quota("anna", { reset_at }) });
    expect((await run("--apply")).code).toBe(0);
    expect(await used("anna")).toBe(expected);
  });

  it("replaces a password that is too short, and has one that all try first changed", async () => {
    const { run, account } = useFolders({ anna: user("anna", "", "short"), ben: user("ben", "", "password123") });
    const { code, out, err } = await run("--apply");
    expect(code).toBe(0);
    const password = /^anna gets a password \(shown only now\): (\S+)\nanna is imported\.$/m.exec(out)?.[1] ?? "";
    const passwords = createPasswords({ maxHashes: 1, maxWaiting: 1 });
    expect(await passwords.matches(String(account("anna").password_hash), password)).toBe(true);
    expect(await passwords.matches(String(account("ben").password_hash), "password123")).toBe(true);
    expect([account("anna"), account("ben")]).toMatchObject(Array(2).fill({ must_change_password: true }));
    expect(out + err).not.toMatch(/"short"|password123/);
  });

  it.each<[string, Record<string, string>, Record<string, unknown>, RegExp]>([
    ["a name with a slash", { x: user("../x") }, {}, /^"\.\.\/x" .*PROBLEM: the name has other characters/m],
    ["a name in capitals", { Admin: user("Admin") }, {}, /^Admin .*PROBLEM: the name has other characters/m],
    ["a name of a device", { con: user("con") }, {}, /^con .*PROBLEM: the name/m],
    ["a line break in a name", { x: user("a\\nroot is imported") }, {}, /^"a\\nroot is imported" .*PROBLEM/m],
    [
      "an unknown tier",
      { anna: user("anna").replace("basic", "gold") },
      {},
      /PROBLEM: config.toml has no such tier: basic/,
    ],
    ["bad TOML", { anna: 'username = "anna"\npassword = planted' }, {}, /anna\.toml: Invalid TOML/],
    ["no password", { anna: 'username = "anna"\nquota_tier = "basic"' }, {}, /anna\.toml: password: /],
    ["bad JSON", { anna: user("anna") }, { anna: "{" }, /anna\.json: is not valid JSON\n?/],
    [
      "a negative count",
      { anna: user("anna") },
      { anna: quota("anna", { used_count: -1 }) },
      /anna\.json: used_count: /,
    ],
    ["a fractional limit", { anna: user("anna") }, { anna: quota("anna", { monthly_limit: 1.5 }) }, /monthly_limit: /],
    ["an absurd count", { anna: user("anna") }, { anna: quota("anna", { used_count: 1e300 }) }, /used_count: /],
    [
      "a reset that is no time",
      { anna: user("anna") },
      { anna: quota("anna", { reset_at: "soon" }) },
      /reset_at of the/,
    ],
    ["a list for a quota", { anna: user("anna") }, { anna: "[]" }, /anna\.json: /],
  ])("imports nothing of a user with %s, and says so", async (_, users, quotas, problem) => {
    const { run, usersDir } = useFolders(users, quotas);
    const dry = await run();
    const { code, out, err } = await run("--apply");
    expect([dry.code, code]).toEqual([1, 1]);
    expect(`${out}\n${err}`).toMatch(problem);
    expect(out + err).not.toContain("planted");
    expect(out).not.toMatch(/is imported\.$/m);
    expect(accounts(usersDir)).toEqual([]);
  });

  it("imports the others beside those with a problem", async () => {
    const { run, usersDir, old } = useFolders(
      { anna: user("anna"), ben: user("ben"), copy: user("anna"), cleo: "oops" },
      { anna: quota("anna"), ben: quota("ben", { used_count: -1 }), ghost: quota("ghost") },
    );
    symlinkSync("/etc/passwd", join(old, "data", "users", "link.toml"));
    const { code, err } = await run("--apply");
    expect(code).toBe(1);
    expect(accounts(usersDir)).toEqual(["anna.toml"]);
    for (const problem of [/copy\.toml: another file/, /cleo\.toml/, /link\.toml: is a symbolic/, /quota of ghost/]) {
      expect(err).toMatch(problem);
    }
  });

  it("takes the data folder itself, and refuses a folder that is none", async () => {
    const { run, old } = useFolders({ anna: user("anna") });
    expect((await runCli(runImportCli, [join(old, "data")], tempDir())).out).toMatch(/^anna /m);
    expect(await runCli(runImportCli, ["/nowhere"], tempDir())).toMatchObject({ code: 1 });
    expect((await run("too", "much")).code).toBe(2);
  });

  it("is refused while a server holds the folder", async () => {
    const { run, usersDir } = useFolders({ anna: user("anna") });
    mkdirSync(usersDir);
    const processes = createProcessTable({ pid: process.pid, host: hostname(), exists: () => true });
    const path = join(usersDir, ".lock");
    const lock = await acquireLock({ path, processes, clock: systemClock, onLost: () => undefined });
    const { code, err } = await run("--apply");
    await lock.release();
    expect([code, err]).toEqual([1, expect.stringMatching(/^error: .*\.lock is held by process/)]);
    expect(accounts(usersDir)).toEqual([]);
  });
});
