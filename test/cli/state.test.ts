import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { runStateCli } from "../../src/cli/state-commands.ts";
import { configSchema } from "../../src/config/schema.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { openRisk } from "../../src/risk/open-risk.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { runCli } from "../support/cli.ts";
import { chatFinished } from "../support/events.ts";
import { openTestLedger, spend, usedOf } from "../support/ledger.ts";
import { describeWithRedis, newPrefix, useRedis } from "../support/redis-server.ts";
import { tempDir } from "../support/temp-dir.ts";

describeWithRedis("npm run state", () => {
  const redis = useRedis();

  it("brings the users folder to Redis and back, and names each difference", async () => {
    const folder = tempDir();
    const users = join(folder, "users");
    mkdirSync(users);
    writeFileSync(join(folder, "config.toml"), `[state]\nkey_prefix = "${newPrefix()}"\n`);
    writeFileSync(join(users, "alice.toml"), "a text\n");
    const ledger = await openTestLedger(users, systemClock);
    await spend(ledger);
    await ledger.close();
    const run = (word: string) => runCli(runStateCli, [word], folder, "", { REDIS_URL: redis.server().url });

    expect(await run("export")).toMatchObject({ code: 1, err: expect.stringContaining("nothing to export") as string });
    const same = { code: 0, out: "The users folder and Redis have the same." };
    expect(await run("import")).toMatchObject(same);
    expect((await run("import")).out).toContain(same.out);

    rmSync(users, { recursive: true });
    mkdirSync(users);
    const different = await run("verify");
    expect(different.code).toBe(1);
    expect(different.out).toContain("alice, month:tokens: 0 in the users folder, 70 in Redis");
    expect(different.out).toContain("users/alice: the users folder does not have it");
    expect(await run("export")).toMatchObject(same);
    expect(readFileSync(join(users, "alice.toml"), "utf8")).toBe("a text\n");
    const back = await openTestLedger(users, systemClock);
    expect(usedOf(back)).toEqual([1]);
    await back.close();
  });

  it("brings users whose password somebody has written into their file, and names those that it cannot", async () => {
    const folder = tempDir();
    const users = join(folder, "users");
    mkdirSync(users);
    writeFileSync(join(folder, "config.toml"), `[state]\nkey_prefix = "${newPrefix()}"\n`);
    const write = (name: string, tier: string): void => {
      const text = `username = "${name}"\npassword = "a long password"\nquota_tier = "${tier}"\n`;
      writeFileSync(join(users, `${name}.toml`), text);
    };
    write("eve", "basic");
    write("carol", "none");
    const run = (word: string) => runCli(runStateCli, [word], folder, "", { REDIS_URL: redis.server().url });

    const left = "users/carol: its password is in plain text, so it is not in force and stays in the users folder";
    expect(await run("import")).toMatchObject({ code: 1, out: `${left}\n1 differences.` });
    expect(await run("verify")).toMatchObject({ code: 1, out: `${left}\n1 differences.` });

    rmSync(users, { recursive: true });
    mkdirSync(users);
    expect((await run("export")).code).toBe(0);
    expect(readFileSync(join(users, "eve.toml"), "utf8")).toMatch(/^password_hash = /m);
    write("eve", "basic");
    expect((await run("verify")).out).toBe(`${left.replace("carol", "eve")}\n1 differences.`);
  });

  it("brings what is noted of users for their trust back as well", async () => {
    const folder = tempDir();
    const users = join(folder, "users");
    const keyPrefix = newPrefix();
    mkdirSync(users);
    writeFileSync(join(folder, "config.toml"), `[state]\nkey_prefix = "${keyPrefix}"\n`);
    writeFileSync(join(users, "alice.toml"), "a text\n");
    const run = (word: string) => runCli(runStateCli, [word], folder, "", { REDIS_URL: redis.server().url });
    expect((await run("import")).code).toBe(0);
    const alice = { username: "alice", created_at: new Date(0) };
    const { risk: config } = configSchema.parse({ risk: { enabled: true } });
    const rules = { config, ownRules: new Set<string>(), clock: systemClock, emit: () => undefined };
    const process = await openRisk({
      ...rules,
      usersDir: tempDir(),
      log: createCapturedLog(),
      redis: await redis.open({ keyPrefix }),
    });
    process.trustOf(alice);
    process.sink(chatFinished({ at: systemClock.now(), user: "alice" }));
    await process.close();

    rmSync(users, { recursive: true });
    mkdirSync(users);
    expect((await run("export")).code).toBe(0);
    const { users: noted } = JSON.parse(readFileSync(join(users, "trust.json"), "utf8")) as { users: object };
    expect(noted).toMatchObject({ alice: { completed: 1 } });
    const alone = await openRisk({ ...rules, usersDir: users, log: createCapturedLog() });
    expect([...alone.records()].map(([name]) => name)).toEqual(["alice"]);
    await alone.close();
  });

  it("completes an export that was interrupted", async () => {
    const folder = tempDir();
    const users = join(folder, "users");
    mkdirSync(users);
    writeFileSync(join(folder, "config.toml"), `[state]\nkey_prefix = "${newPrefix()}"\n`);
    const names = Array.from({ length: 20 }, (_, index) => `user${index}.toml`);
    for (const name of names) writeFileSync(join(users, name), `the text of ${name}\n`);
    const run = (word: string) => runCli(runStateCli, [word], folder, "", { REDIS_URL: redis.server().url });
    expect((await run("import")).code).toBe(0);
    rmSync(users, { recursive: true });
    // Nothing can be written where a folder is.
    mkdirSync(join(users, "user7.toml"), { recursive: true });
    expect((await run("export")).code).toBe(1);
    rmSync(join(users, "user7.toml"), { recursive: true });
    expect(await run("export")).toMatchObject({ code: 0, out: "The users folder and Redis have the same." });
    for (const name of names) expect(readFileSync(join(users, name), "utf8")).toBe(`the text of ${name}\n`);
  });

  it("says what is wrong with the command, or with the address", async () => {
    const folder = tempDir();
    mkdirSync(join(folder, "users"));
    expect(await runCli(runStateCli, ["move"], folder)).toMatchObject({ code: 2 });
    const { code, err } = await runCli(runStateCli, ["verify"], folder);
    expect([code, err]).toEqual([1, expect.stringContaining("REDIS_URL")]);
  });
});
