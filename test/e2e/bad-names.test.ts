import { anyText, fc } from "../support/fast-check.ts";
import { mkdir, mkdtemp, readFile, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { parseToml } from "../../src/identity/files/toml-edit.ts";
import { eventually } from "../support/eventually.ts";
import { answerOf, expectRefusal } from "../support/refusals.ts";
import { alicePassword, post, skipOverRedis, startProxy, userFile, type RunningProxy } from "../support/start-proxy.ts";

/** All files below a folder with their content, but for what every proxy keeps changing. */
async function filesOf(folder: string): Promise<Record<string, string>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile() && !/\/(journal|logs|usage)(\/|$)/.test(entry.parentPath));
  const texts = files.map(async ({ parentPath, name }) => {
    const path = join(parentPath, name);
    // The probe of /healthz may come and go.
    return [path, await readFile(path, "utf8").catch(() => "gone")] as const;
  });
  return Object.fromEntries(await Promise.all(texts));
}

describe("a name that can't be a user's", () => {
  let parent: string;
  let proxy: RunningProxy;
  let before: Record<string, string>;

  beforeAll(async () => {
    // One level above the proxy's folder belongs to the test as well, so that a file beside it would show.
    parent = await mkdtemp(join(tmpdir(), "names-"));
    const folder = join(parent, "proxy");
    await mkdir(join(folder, "users"), { recursive: true });
    await writeFile(join(folder, "users", "alice.toml"), userFile("alice", alicePassword));
    proxy = await startProxy({ folder, config: "[security]\nlogin_free_failures = 1000\n" });
    await proxy.login();
    // Over Redis, the folder follows.
    await eventually(async () => {
      before = await filesOf(parent);
      expect(Object.keys(before)).toContain(join(folder, "users", "alice.sessions.toml"));
    });
  });

  afterEach(async () => {
    expect(await filesOf(parent)).toEqual(before);
    const logged = await readdir(join(proxy.folder, "logs"), { recursive: true });
    const expected = /^(requests|(requests\/)?(\.days|users(\/(alice|all|_unknown)(\/[^/]+\.jsonl)?)?))$/;
    expect(logged.filter((name) => !expected.test(name))).toEqual([]);
  });

  afterAll(async () => {
    await proxy.dispose();
    await rm(parent, { recursive: true, force: true });
  });

  const logIn = (username: unknown, password: unknown = "some password"): Promise<Response> =>
    post(`${proxy.url}/auth/login`, { username, password });

  it.each([
    "../x",
    "../../x",
    "..",
    ".",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "a%2fb",
    "a\0b",
    "alice\0",
    "alice\n",
    "con",
    "nul",
    "com1",
    "a.",
    "a.b",
    "alice.toml",
    "alice.quota",
    ".keys",
    "-a",
    "a".repeat(33),
    "",
    " ",
    " alice",
    "Admin",
    "ALICE",
    "\u0430lice",
    "ａlice",
    "\u212aelvin",
    "ali\u200bce",
    "__proto__",
    "\ud800",
  ])("is refused with 400: %j", async (name) => {
    expectRefusal(proxy, await answerOf(await logIn(name)), "invalid_request", "username");
  });

  it.each([[5], [null], [["alice"]], [{ toString: "alice" }], ["a".repeat(1025)]])(
    "is refused with 400 if it is no name at all: %j",
    async (name) => {
      expectRefusal(proxy, await answerOf(await logIn(name)), "invalid_request", "username");
    },
  );

  it("never costs a 500 or a file, whatever it is", async () => {
    const text = fc.oneof(
      anyText(),
      fc.string({ unit: fc.constantFrom("a", "A", ".", "/", "\\", "\0", "%", "2", "e", "-", "_", "~", "\ud83d") }),
    );
    await fc.assert(
      fc.asyncProperty(text, async (name) => {
        const answer = await answerOf(await logIn(name));
        const code = /^[a-z0-9][a-z0-9_-]{0,31}$/.test(name) ? "invalid_credentials" : "invalid_request";
        expectRefusal(proxy, answer, code, code === "invalid_request" ? "username" : null);
      }),
      { numRuns: 300 },
    );
  });

  it("makes no file either where it is well formed and nobody's", async () => {
    expectRefusal(proxy, await answerOf(await logIn("mallory")), "invalid_credentials");
  });
});

describe("a user file as nobody should leave it", () => {
  let proxy: RunningProxy;

  afterEach(() => proxy.dispose());

  const usersFile = (name: string): string => join(proxy.folder, "users", name);

  async function problems(): Promise<unknown> {
    const answer = await fetch(`${proxy.url}/healthz`);
    const body = (await answer.json()) as { checks: { accounts: { problems: unknown } } };
    return body.checks.accounts.problems;
  }

  it("is not followed where it is a symlink, and its target stays untouched", async () => {
    skipOverRedis("is about a file that is put there while the proxy runs");
    proxy = await startProxy();
    const target = join(proxy.folder, "outside.toml");
    const text = userFile("mallory", "mallory's password");
    await writeFile(target, text);
    await symlink(target, usersFile("mallory.toml"));
    await eventually(async () => {
      expect(await problems()).toMatchObject([
        { file: "mallory.toml", reason: expect.stringContaining("symbolic link") },
      ]);
    });
    const login = await post(`${proxy.url}/auth/login`, { username: "mallory", password: "mallory's password" });
    expect(login.status).toBe(401);
    expect(await readFile(target, "utf8")).toBe(text);
    await proxy.login();
  });

  it("doesn't keep the others from loading where it has a syntax error, and is named and left alone", async () => {
    skipOverRedis("is about what stands in a file");
    const broken = 'username = "bob"\npassword = "bob\'s secret word\nquota_tier = "basic"\n';
    proxy = await startProxy({ users: { alice: userFile("alice", alicePassword), bob: broken } });
    await proxy.login();
    expect(await problems()).toMatchObject([{ file: "bob.toml", line: 2 }]);
    const lines = proxy.logLines.filter((line) => line.includes("bob.toml"));
    expect(lines).toHaveLength(1);
    expect(lines[0]).not.toContain("secret word");
    expect(await readFile(usersFile("bob.toml"), "utf8")).toBe(broken);
    expect((await post(`${proxy.url}/auth/login`, { username: "bob", password: "x" })).status).toBe(401);
  });

  it("keeps metadata as it is, and a log line a line, whatever stands in it", async () => {
    const metadata = {
      quotes: `"""'''"'\\`,
      lines: 'first\nsecond\r\n{"level":"error"}\n[section]\nusername = "root"',
      'a "key" = [x]\n#': "# no comment",
      nested: { "": ["]", "}}", "\u0000\u001b[31m", "𝒳"] },
    };
    proxy = await startProxy();
    await proxy.services.users.create({
      username: "bob",
      password: alicePassword,
      quota_tier: "basic",
      metadata,
    });
    await proxy.services.users.update("bob", { max_parallel: 3 });
    const token = await proxy.login("bob");
    await post(`${proxy.url}/chat/completions`, {}, { authorization: `Bearer ${token}` });
    const { folder } = proxy;
    await proxy.stop();
    expect(parseToml(await readFile(usersFile("bob.toml"), "utf8"))).toMatchObject({ metadata });
    for (const line of proxy.logLines) expect(() => JSON.parse(line) as unknown).not.toThrow();
    for (const line of proxy.logLines) expect(line).toMatch(/^[^\n]*\n$/);

    proxy = await startProxy({ folder });
    expect((await proxy.services.users.get("bob"))?.metadata).toEqual(metadata);
    expect(await problems()).toEqual([]);
  });
});
