import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { runImportCli } from "../../src/cli/import-commands.ts";
import { runQuotaCli } from "../../src/cli/quota-commands.ts";
import { runStateCli } from "../../src/cli/state-commands.ts";
import { runUserCli } from "../../src/cli/user-commands.ts";
import { ask, jsonOf, logIn, statusOf } from "../support/accounts.ts";
import { readAudits } from "../support/admin-api.ts";
import { runCli, type CommandResult } from "../support/cli.ts";
import { eventually } from "../support/eventually.ts";
import { quotaOf } from "../support/quota.ts";
import { describeWithRedis, newPrefix, useRedis } from "../support/redis-server.ts";
import { alicePassword, bearer, post, startProxy } from "../support/start-proxy.ts";
import { tempDir } from "../support/temp-dir.ts";

const tiers = `[quota.tiers.basic]
limits = [{ metric = "requests", per = "month", max = 10 }, { metric = "cost", per = "total", max = 2 }]
`;
const because = ["--reason", "a test"];

/** A folder with a config whose state is in Redis. */
function sharedFolder(keyPrefix = newPrefix()): string {
  const folder = tempDir();
  mkdirSync(join(folder, "users"));
  writeFileSync(join(folder, "config.toml"), `[state]\nbackend = "redis"\nkey_prefix = "${keyPrefix}"\n${tiers}`);
  return folder;
}

describeWithRedis("commands on a state in Redis", () => {
  const redis = useRedis();

  /** A running server, and commands that use its folder, which it has locked. */
  async function useServer() {
    const shared = { url: redis.server().url, keyPrefix: newPrefix() };
    const proxy = await startProxy({ config: tiers, redis: shared });
    onTestFinished(() => proxy.dispose());
    writeFileSync(join(proxy.folder, "config.toml"), proxy.configText(tiers).replace("port = 0", ""));
    const env = { REDIS_URL: shared.url };
    const run =
      (cli: typeof runUserCli) =>
      (...argv: string[]): Promise<CommandResult> =>
        runCli(cli, argv, proxy.folder, `${alicePassword}\n`, env);
    return { proxy, shared, env, user: run(runUserCli), quota: run(runQuotaCli) };
  }

  it("change users, sessions and keys beside a running server", async () => {
    const { proxy, user } = await useServer();
    expect(await user("add", "bob", "--tier", "basic", "--password-stdin")).toMatchObject({ code: 0, err: "" });
    const { token } = await logIn(proxy, "bob", alicePassword);
    const key = await jsonOf<{ id: string; key: string }>(
      post(`${proxy.url}/auth/keys`, { name: "ci" }, bearer(token)),
    );
    expect((await user("list")).out).toMatch(/NAME.*\nalice .*\nbob /);
    expect((await user("show", "bob")).out).toContain('"username": "bob"');
    expect((await user("sessions", "bob")).out).toContain("from 127.0.0.1");
    expect((await user("keys", "bob")).out).toContain(key.body.id);

    expect((await user("revoke-key", "bob", key.body.id)).code).toBe(0);
    await eventually(async () => {
      expect(await statusOf(proxy, key.body.key)).toBe(401);
    });
    expect((await user("end-sessions", "bob")).out).toBe("1 session of bob has ended.");
    await eventually(async () => {
      expect(await statusOf(proxy, token)).toBe(401);
    });
    const second = (await logIn(proxy, "bob", alicePassword, "another")).token;
    expect((await user("disable", "bob")).out).toBe("bob is disabled.");
    await eventually(async () => {
      expect(await statusOf(proxy, second)).toBe(403);
    });
    // The folder is the server's copy: it gets the change from Redis.
    await eventually(() => {
      expect(readFileSync(join(proxy.folder, "users", "bob.toml"), "utf8")).toContain("is_active = false");
    });
    for (const argv of [
      ["enable", "bob"],
      ["passwd", "bob"],
      ["reset-password", "bob"],
      ["unban", "bob"],
    ])
      expect(await user(...argv)).toMatchObject({ code: 0, err: "" });
    expect(await user("ban", "bob", "--until", "2099-01-01T00:00:00Z")).toMatchObject({ code: 0, err: "" });
    expect(await user("set", "bob", "max_parallel=3")).toMatchObject({ code: 0, err: "" });
    expect((await user("archive", "bob")).out).toContain("bob is archived.");
    expect(await user("show", "bob")).toMatchObject({ code: 1, err: expect.stringContaining("bob") as string });
    expect((await readAudits(proxy.folder)).at(-1)).toMatchObject({ action: "user.archived", by: "cli:tester" });
  });

  it("change what is used, exactly, and what is granted", async () => {
    const { proxy, quota } = await useServer();
    const { token } = await logIn(proxy, "alice", alicePassword);
    const adjusted = await Promise.all([1, 2, 3].map(() => quota("adjust", "alice", "--requests=2", ...because)));
    expect(adjusted.map(({ code, err }) => [code, err])).toEqual([0, 1, 2].map(() => [0, ""]));
    expect((await quota("adjust", "alice", "--cost=0.000000001", ...because)).out).toContain("6 of 10 used, 4 left");
    expect(await quotaOf(proxy, token)).toMatchObject([{ used: 6, max: 10 }, { used: 0.000000001 }]);
    const grant = ["grant", "alice", "--metric", "requests", "--per", "month", "--amount", "5", ...because];
    expect((await quota(...grant)).out).toContain("requests per month: at most 15");
    expect((await quota("reset", "alice", "--per", "month", ...because)).out).toContain("0 of 15 used");
    const shown = await quota("show", "alice");
    expect(shown.out).toMatch(/^requests per month: 0 of 15 used.*\ncost per total CNY: 0\.000000001 of 2.*\ngrant: /);
    await eventually(async () => {
      expect(await quotaOf(proxy, token)).toMatchObject([{ used: 0, max: 15 }, { used: 0.000000001 }]);
    });
    const usage = await ask<{ totals: unknown }>(proxy, "GET /auth/usage", token);
    expect(usage.status).toBe(200);
    expect(await quota("bring-back")).toMatchObject({
      code: 1,
      err: expect.stringContaining("npm run state -- export") as string,
    });
    expect(await quota("show", "nobody")).toMatchObject({ code: 1, err: 'error: There is no user "nobody".' });
  });

  it("leave the folder and Redis the same, also where no server ran meanwhile", async () => {
    const { proxy, env, user, quota } = await useServer();
    await proxy.stop();
    expect((await user("add", "carol")).code).toBe(0);
    expect((await quota("adjust", "carol", "--requests=7", ...because)).out).toContain("7 of 10 used");
    const state = (word: string) => runCli(runStateCli, [word], proxy.folder, "", env);
    expect((await state("verify")).code).toBe(1);
    expect(await state("export")).toMatchObject({ code: 0 });
    expect(readFileSync(join(proxy.folder, "users", "carol.toml"), "utf8")).toContain('username = "carol"');
  });

  it("say that Redis has no state, rather than begin one", async () => {
    const env = { REDIS_URL: redis.server().url };
    const folder = sharedFolder();
    for (const [cli, argv] of [
      [runUserCli, ["add", "bob"]],
      [runQuotaCli, ["adjust", "bob", "--requests=1", ...because]],
    ] as const) {
      const { code, err } = await runCli(cli, argv, folder, "", env);
      expect([code, err]).toEqual([1, expect.stringContaining("npm run state -- import")]);
    }
  });
});

describe("commands with state.backend redis", () => {
  it.each([
    [{}, "environment REDIS_URL: expected redis://"],
    [{ REDIS_URL: "http://127.0.0.1:1" }, "environment REDIS_URL: expected redis://"],
  ])("with %j say what is wrong with the address", async (env: Record<string, string>, message) => {
    const folder = sharedFolder();
    for (const [cli, argv] of [
      [runUserCli, ["list"]],
      [runQuotaCli, ["show", "alice"]],
    ] as const) {
      const { code, err } = await runCli(cli, argv, folder, "", env);
      expect([code, err]).toEqual([1, expect.stringContaining(message)]);
    }
  });

  it("refuse an import into the copy, and say the way", async () => {
    const { code, err } = await runCli(runImportCli, [tempDir(), "--apply"], sharedFolder());
    expect([code, err]).toEqual([1, expect.stringContaining("npm run state -- import")]);
  });
});
