import { mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { ask, jsonOf, logIn, refresh, statusOf, type Tokens } from "../support/accounts.ts";
import {
  alicePassword,
  bearer,
  post,
  skipOverRedis,
  startProxy,
  userFile,
  type RunningProxy,
} from "../support/start-proxy.ts";

/** Lines of a key in users/alice.keys.toml that somebody has written by hand. */
const badKeyLines: readonly string[] = [
  'addresses = ["::ffff:9.8.7.6/64"]',
  'addresses = ["nowhere"]',
  "addresses = []",
  'models = ["*a*a*a*a*a*a*a*a*a*a*a"]',
  "models = [1]",
  'limits = [{ metric = "tokens", per = "day", max = 1.5 }]',
  'limits = [{ metric = "smiles", per = "day", max = 1 }]',
  "expires_at = 5",
  'expires_at = "tomorrow"',
  'color = "red"',
];

const goodHash = "A".repeat(43);
const row = (index: number, line: string): string =>
  `[[keys]]\nid = "bad-${index}"\nname = "bad"\nhash = "${goodHash.slice(0, 40)}${String(index).padStart(3, "0")}"\n` +
  `created_at = 2026-01-01T00:00:00Z\n${line}\n`;

describe("I2: what somebody has written by hand", () => {
  let proxy: RunningProxy;
  const users = {
    alice: userFile("alice", alicePassword),
    bob: userFile("bob", alicePassword),
  };

  beforeAll(async () => {
    proxy = await startProxy({ users });
  });

  beforeEach(() => {
    skipOverRedis("files are changed by hand");
  });

  afterAll(() => proxy.dispose());

  const pathOf = (file: string): string => join(proxy.folder, "users", file);

  /** Stops the proxy, changes its files, and starts it again. */
  async function restartAfter(change: () => Promise<unknown>): Promise<void> {
    await proxy.stop();
    await change();
    proxy = await startProxy({ folder: proxy.folder });
  }

  async function problems(): Promise<readonly { readonly file: string; readonly reason: string }[]> {
    const health = await jsonOf<{
      checks: { accounts: { ok: boolean; problems: { file: string; reason: string }[] } };
    }>(fetch(`${proxy.url}/healthz`));
    expect(health.body.checks.accounts.ok).toBe(true);
    return health.body.checks.accounts.problems;
  }

  const newKey = async (token: string): Promise<string> =>
    (await jsonOf<{ key: string }>(post(`${proxy.url}/auth/keys`, { name: "key" }, bearer(token)))).body.key;

  it("in a file of keys costs the row that it is in, and the row stays for somebody to mend", async () => {
    const alice = await logIn(proxy, "alice", alicePassword);
    const keys = [await newKey(alice.token), await newKey(alice.token)];
    await restartAfter(async () => {
      const text = await readFile(pathOf("alice.keys.toml"), "utf8");
      const rows = badKeyLines.map((line, index) => row(index, line));
      await writeFile(pathOf("alice.keys.toml"), rows.slice(0, 5).join("") + text + rows.slice(5).join(""));
    });
    for (const key of keys) expect(await statusOf(proxy, key)).toBe(200);
    const found = await problems();
    expect(found.map(({ file }) => file)).toEqual(badKeyLines.map(() => "alice.keys.toml"));
    for (const [index, line] of badKeyLines.entries()) {
      const at = index < 5 ? index : index + keys.length;
      expect(found[index]?.reason).toMatch(
        new RegExp(`^keys\\.${at}: ${line.split(" ")[0] === "color" ? "" : line.split(" ")[0]}`),
      );
    }
    const logged = proxy.logLines.filter((line) => line.includes("alice.keys.toml"));
    expect(logged).toHaveLength(badKeyLines.length);

    // The user goes on making and revoking keys, and nothing is lost.
    const { token } = await logIn(proxy, "alice", alicePassword);
    const third = await newKey(token);
    expect(await ask(proxy, "GET /auth/keys", token)).toMatchObject({ body: { keys: { length: 3 } } });
    await restartAfter(() => Promise.resolve());
    for (const key of [...keys, third]) expect(await statusOf(proxy, key)).toBe(200);
    expect(await problems()).toHaveLength(badKeyLines.length);
    expect((await readFile(pathOf("alice.keys.toml"), "utf8")).match(/"bad-\d/g)).toHaveLength(badKeyLines.length);
    await restartAfter(() => rm(pathOf("alice.keys.toml")));
  });

  it("in a file that was copied gives nobody the keys or sessions of another", async () => {
    const { token, refresh_token } = await logIn(proxy, "alice", alicePassword);
    const key = await newKey(token);
    await restartAfter(async () => {
      for (const kind of ["keys", "sessions"]) {
        await writeFile(pathOf(`bob.${kind}.toml`), await readFile(pathOf(`alice.${kind}.toml`)));
      }
    });
    expect(await ask(proxy, "GET /auth/quota", key)).toMatchObject({ status: 200, body: { username: "alice" } });
    expect(await refresh(proxy, refresh_token)).toMatchObject({ status: 200 });
    expect((await problems()).map(({ file }) => file)).toEqual(
      expect.arrayContaining(["bob.keys.toml", "bob.sessions.toml"]),
    );
    await restartAfter(() => Promise.all(["keys", "sessions"].map((kind) => rm(pathOf(`bob.${kind}.toml`)))));
  });

  it("in a file of sessions costs the row that it is in", async () => {
    const { refresh_token } = await logIn(proxy, "bob", alicePassword, "phone");
    await restartAfter(async () => {
      const path = pathOf("bob.sessions.toml");
      const text = await readFile(path, "utf8");
      const long = text.replace(/ip = ".*"/, `ip = "${"1".repeat(500)}"`).replace(/id = ".*"/, 'id = "long"');
      await writeFile(path, `${long}\n${text}\n[[sessions]]\nid = 7\n`);
    });
    expect((await problems()).map(({ file }) => file)).toEqual(["bob.sessions.toml", "bob.sessions.toml"]);
    expect(await refresh(proxy, refresh_token)).toMatchObject({ status: 200 });
  });

  const wholeFiles: readonly (readonly [what: string, write: (path: string) => Promise<unknown>])[] = [
    ["no TOML", (path) => writeFile(path, "[[keys")],
    ["not UTF-8", (path) => writeFile(path, Buffer.from([0xff, 0xfe]))],
    ["too deep", (path) => writeFile(path, `x = ${"[".repeat(100_000)}`)],
    ["something else", (path) => writeFile(path, "keys = 1\nsessions = 1\n")],
    ["a folder", (path) => mkdir(path)],
    ["a link", (path) => symlink("/etc/passwd", path)],
    ["empty", (path) => writeFile(path, "")],
  ];

  it.each(wholeFiles)("as a whole file (%s) stops nobody else and no start", async (what, write) => {
    const files = ["alice.keys.toml", "alice.sessions.toml", "alice.quota.toml", "carol.toml"];
    await restartAfter(async () => {
      for (const file of files) await rm(pathOf(file), { recursive: true, force: true });
      for (const file of files) await write(pathOf(file));
    });
    const found = (await problems()).map(({ file }) => file);
    const expected = what === "empty" ? files.slice(2) : files;
    expect(found).toEqual(expect.arrayContaining(expected));
    expect(proxy.logLines.filter((line) => line.includes("alice.quota.toml"))).toHaveLength(1);

    // Alice herself may come in; what she has used is not known, so she gets nothing billable.
    const body = { model: "sim-fast", stream: false, messages: [{ role: "user", content: "hi" }] };
    const chat = (token: string) => jsonOf(post(`${proxy.url}/v1/chat/completions`, body, bearer(token)));
    const tokens: Readonly<Record<string, Tokens>> = {
      alice: await logIn(proxy, "alice", alicePassword),
      bob: await logIn(proxy, "bob", alicePassword),
    };
    expect(await chat(tokens.bob?.token ?? "")).toMatchObject({ status: 200 });
    expect(await chat(tokens.alice?.token ?? "")).toMatchObject({
      status: 503,
      body: { error: { code: "storage_unavailable" } },
    });
  });
});
