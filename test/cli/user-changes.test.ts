import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { runUserCli } from "../../src/cli/user-commands.ts";
import { until } from "../identity/support.ts";
import { jsonOf, logIn, statusOf } from "../support/accounts.ts";
import { runCli, type CommandResult } from "../support/cli.ts";
import { alicePassword, bearer, post, startProxy, userFile, type RunningProxy } from "../support/start-proxy.ts";
import { tempDir } from "../support/temp-dir.ts";

interface Shown {
  readonly metadata: Readonly<Record<string, unknown>>;
}

function useCli(folder = tempDir()) {
  const run = (args: string | readonly string[], stdin = ""): Promise<CommandResult> =>
    runCli(runUserCli, typeof args === "string" ? args.split(" ") : args, folder, stdin);
  return {
    folder,
    run,
    show: async (name: string) => JSON.parse((await run(["show", name])).out) as Shown,
    audited: async () => {
      const logs = join(folder, "logs", "audit");
      const texts = await Promise.all((await readdir(logs)).map((file) => readFile(join(logs, file), "utf8")));
      return texts
        .join("")
        .split("\n")
        .filter(Boolean)
        .map((line) => JSON.parse(line) as Record<string, unknown>);
    },
  };
}

async function useServer(): Promise<RunningProxy> {
  const root = userFile("root", "a long enough password", 'roles = ["admin"]\n');
  const proxy = await startProxy({ users: { alice: userFile("alice", alicePassword), root } });
  onTestFinished(() => proxy.dispose());
  return proxy;
}

describe("npm run user, on fields", () => {
  it("sets any of them, by options and by the names of the user file, and an empty value removes", async () => {
    const { run, show } = useCli();
    await run("add bob --tier pro --expires-at 2099-01-01T00:00:00Z --metadata team=sales --metadata n=1");
    expect(await show("bob")).toMatchObject({
      quota_tier: "pro",
      expires_at: "2099-01-01T00:00:00.000Z",
      must_change_password: true,
      metadata: { team: "sales", n: 1 },
    });
    const limits = 'limits=[{ metric = "requests", per = "day", max = 5 }]';
    const words = ["max_parallel=3", "roles=user,auditor", "expires_at=", "metadata.n=", "metadata.since=2024-05-01"];
    const set = await run(["set", "bob", ...words, limits, "--tier", "basic", "--metadata", "note=a b = c"]);
    expect(set).toEqual({ code: 0, out: "bob is changed.", err: "" });
    expect(await show("bob")).toMatchObject({
      quota_tier: "basic",
      roles: ["user", "auditor"],
      max_parallel: 3,
      expires_at: null,
      limits: [{ metric: "requests", per: "day", max: 5 }],
    });
    expect((await show("bob")).metadata).toEqual({ team: "sales", since: "2024-05-01", note: "a b = c" });
  });

  it("bans for a time, with a reason, and ends the ban with its reason", async () => {
    const { run, show } = useCli();
    await run("add bob");
    expect(await run(["ban", "bob", "--until", "2099-01-01T08:00:00+08:00", "--reason", "spam"])).toMatchObject({
      code: 0,
    });
    const banned = { state: "banned", banned_until: "2099-01-01T00:00:00.000Z", ban_reason: "spam" };
    expect(await show("bob")).toMatchObject(banned);
    expect((await run("list")).out).toMatch(/bob +basic +banned/);
    await run("unban bob");
    expect(await show("bob")).toMatchObject({ state: "active", banned_until: null, ban_reason: null });
  });

  it("makes a one-time password, and takes a user out of use", async () => {
    const { folder, run, show } = useCli();
    await run("add bob --password-stdin", "a long enough password\n");
    expect(await show("bob")).toMatchObject({ must_change_password: false });
    expect((await run("reset-password bob")).out).toMatch(/shown only now\): [a-z0-9-]{24}$/);
    expect(await show("bob")).toMatchObject({ must_change_password: true });
    expect(await run("archive bob")).toMatchObject({ code: 0, err: "" });
    expect((await run("list")).out).not.toContain("bob");
    expect(await readdir(join(folder, "users", ".archive"))).toEqual([expect.stringMatching(/^bob-/)]);
  });

  it("finds users by a part of the name", async () => {
    const { run } = useCli();
    for (const name of ["zoe", "bob", "bobby"]) await run(["add", name]);
    const { out } = await run("list --search ob");
    expect(out.split("\n").map((line) => line.split(" ")[0])).toEqual(["NAME", "bob", "bobby"]);
  });

  it.each([
    ["set bob quota_tier=gold", /^error: quota_tier: expected a tier/],
    ["set bob max_parallel=many", /^error: max_parallel/],
    ["set bob expires_at=2099-01-01", /^error: expires_at: expected a date and time with an offset/],
    ["set bob is_active=maybe", /^error: is_active/],
    ["set nobody max_parallel=2", /^error: There is no user/],
    ["ban bob --until 2099-01-01", /^error: banned_until: expected a date and time with an offset/],
    ["show ../x", /^error: A user name has/],
    ["archive CON", /^error: A user name has/],
    ["revoke-key bob none", /^error: bob has no such API key/],
  ])("refuses %j with exit code 1, and changes nothing", async (args, reason) => {
    const { folder, run } = useCli();
    await run("add bob");
    const before = await readFile(join(folder, "users", "bob.toml"), "utf8");
    const { code, err } = await run(args);
    expect([code, err]).toEqual([1, expect.stringMatching(reason)]);
    expect(await readFile(join(folder, "users", "bob.toml"), "utf8")).toBe(before);
  });

  it.each([
    "add",
    "set bob",
    "set bob nickname=x",
    "set bob password=abc",
    "set bob x",
    "ban bob",
    "ban bob --until soon",
  ])("answers %j with exit code 2 and the usage", async (args) => {
    const { run } = useCli();
    await run("add bob");
    const { code, err } = await run(args);
    expect([code, err]).toEqual([2, expect.stringMatching(/^Usage: npm run user.*\n\nerror: .*$/s)]);
  });

  it.each([
    ["set bob tier=pro", 'there is no field "tier" to set; did you mean "quota_tier"?'],
    ["set bob max_paralel=3", 'there is no field "max_paralel" to set; did you mean "max_parallel"?'],
    ["add", "add needs a user name"],
    ["list all", "list takes no further word, not 1"],
  ])("says last what is wrong with %j", async (args, message) => {
    const { run } = useCli();
    expect((await run(args)).err.split("\n").at(-1)).toBe(`error: ${message}`);
  });

  it("protects the last admin, and refuses weak passwords, as the API does", async () => {
    const { run } = useCli();
    await run("add boss --role admin");
    for (const args of ["disable boss", "archive boss", "set boss roles=user"]) {
      expect(await run(args)).toMatchObject({ code: 1, err: expect.stringContaining("last admin") });
    }
    expect(await run("passwd boss --password-stdin", "password123\n")).toMatchObject({ code: 1 });
    expect(await run("add bob --password-stdin", "qwerty123\n")).toMatchObject({ code: 1 });
  });

  it("says in the audit log who has changed what", async () => {
    const { run, audited } = useCli();
    await run("add bob");
    await run("set bob max_parallel=2");
    await run("set bob max_parallel=2");
    await run("passwd bob");
    await run("end-sessions bob");
    await run("archive bob");
    const lines = await audited();
    const common = { event: "admin.changed", by: "cli:tester", ip: "", user: "bob" };
    expect(lines).toMatchObject([
      { ...common, action: "user.created" },
      { ...common, action: "user.changed", before: { max_parallel: null }, after: { max_parallel: 2 } },
      { ...common, action: "user.password_reset" },
      { ...common, action: "user.archived" },
    ]);
    expect(new Set(lines.map(({ trace_id }) => trace_id)).size).toBe(lines.length);
    expect(JSON.stringify(lines)).not.toContain("argon2");
  });
});

describe("npm run user, beside a server", () => {
  it("changes what the server notices", async () => {
    const proxy = await useServer();
    const { run } = useCli(proxy.folder);
    const { token } = await logIn(proxy, "alice", alicePassword);
    await run("ban alice --until 2099-01-01T00:00:00Z");
    await until(async () => {
      expect(await statusOf(proxy, token)).toBe(403);
    });
    await run("unban alice");
    await until(async () => {
      expect(await statusOf(proxy, token)).toBe(200);
    });
    await run("passwd alice");
    await until(async () => {
      expect(await statusOf(proxy, token)).toBe(401);
    });
  });

  it("leaves alone what the server holds in memory, and says what to use instead", async () => {
    const proxy = await useServer();
    const { run } = useCli(proxy.folder);
    for (const [args, route] of [
      ["archive alice", "DELETE /admin/users/alice"],
      ["sessions alice", "GET /admin/users/alice/sessions"],
      ["end-sessions alice", "DELETE /admin/users/alice/sessions"],
      ["keys alice", "GET /admin/users/alice/keys"],
      ["revoke-key alice x", "DELETE /admin/users/alice/keys/ID"],
    ] as const) {
      expect(await run(args), args).toMatchObject({ code: 1, out: "", err: expect.stringContaining(`use ${route},`) });
    }
  });

  it("shows and ends sessions and keys once it has stopped", async () => {
    const proxy = await useServer();
    const { run, audited } = useCli(proxy.folder);
    const { token } = await logIn(proxy, "alice", alicePassword, "a-client");
    const made = await jsonOf<{ id: string; key: string }>(
      post(`${proxy.url}/auth/keys`, { name: "ci" }, bearer(token)),
    );
    const { id, key } = made.body;
    await proxy.stop();
    expect((await run("sessions alice")).out).toMatch(
      /^\S+ {2}begun \S+ {2}used \S+ {2}from 127\.0\.0\.1 {2}a-client$/,
    );
    expect((await run("keys alice")).out).toMatch(new RegExp(`^${id}  made \\S+  used never  ci$`));
    expect((await run("end-sessions alice")).out).toBe("1 session of alice has ended.");
    expect((await run(["revoke-key", "alice", id])).code).toBe(0);
    const actions = (await audited()).map(({ action, subject }) => [action, subject]);
    expect(actions).toEqual([
      ["sessions.revoked", "*"],
      ["api_key.revoked", id],
    ]);
    const again = await startProxy({ folder: proxy.folder });
    onTestFinished(() => again.stop());
    expect([await statusOf(again, token), await statusOf(again, key)]).toEqual([401, 401]);
  });
});
