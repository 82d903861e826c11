import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parseConfig } from "../../../src/config/load.ts";
import { openFileGroups } from "../../../src/identity/files/file-groups.ts";
import { configGroups } from "../../contracts/groups.ts";
import { refusalOf } from "../../support/attempt.ts";
import { createCapturedLog } from "../../support/captured-log.ts";
import { createFaultyFiles } from "../../support/faulty-files.ts";
import { tempDir } from "../../support/temp-dir.ts";

const ofConfig = (text: string) => parseConfig(text, "x").groups;

function setUp(files: Readonly<Record<string, string>> = {}) {
  const usersDir = tempDir();
  const folder = join(usersDir, "groups");
  if (Object.keys(files).length > 0) mkdirSync(folder);
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  const log = createCapturedLog();
  const open = (config = configGroups, more = {}) =>
    openFileGroups({ usersDir, groups: ofConfig(config), log, ...more });
  return { usersDir, folder, log, open };
}

describe("groups in files", () => {
  it("are there again after a restart, each setting as it was", async () => {
    const { folder, open } = setUp();
    const groups = await open();
    const made = await groups.create("alpha", {
      description: 'say "hi"',
      members: ["alice", "@interns"],
      owners: ["olga"],
      models: ["glm-*"],
      max_parallel: 3,
      limits: [{ metric: "cost", per: "month", max: 12.5, currency: "USD" }],
      rates: [{ metric: "requests", per: "minute", max: 60, weight: { "glm-*": 5 } }],
    });
    await groups.close();
    expect(readdirSync(folder)).toEqual(["alpha.toml"]);
    const again = (await open()).get("alpha");
    expect(JSON.stringify(again)).toBe(JSON.stringify(made));
    expect((await open()).ofUser("ivan").map(({ name }) => name)).toEqual(["research", "interns", "alpha"]);
  });

  it("leave no folder behind where nobody has made any", async () => {
    const { usersDir, open } = setUp();
    await (await open()).close();
    expect(readdirSync(usersDir)).toEqual([]);
  });

  it("that can't be read are named, not in force and not overwritten", async () => {
    const { folder, open } = setUp({
      "alpha.toml": "members = [",
      "beta.toml": 'member = ["alice"]',
      "gamma.toml": 'members = ["alice"]',
      "research.toml": 'members = ["mallory"]',
      "UPPER.toml": "",
    });
    const groups = await open();
    expect(groups.problems().map(({ file }) => file)).toEqual([
      "groups/UPPER.toml",
      "groups/alpha.toml",
      "groups/beta.toml",
      "groups/research.toml",
    ]);
    expect(groups.ofUser("alice").map(({ name }) => name)).toEqual(["research", "gamma"]);
    expect(groups.get("research")?.has("mallory")).toBe(false);
    expect(await refusalOf(() => groups.create("alpha", {}))).toMatchObject({ code: "conflict" });
    expect(readFileSync(join(folder, "alpha.toml"), "utf8")).toBe("members = [");
  });

  it("that form a cycle by hand keep their other members, and are named", async () => {
    const { open } = setUp({
      "alpha.toml": 'members = ["@beta", "alice"]',
      "beta.toml": 'members = ["@alpha", "bob"]',
    });
    const groups = await open();
    expect(groups.problems()).toMatchObject([{ file: "groups/beta.toml", reason: /expected no cycle/ as never }]);
    expect(groups.get("alpha")?.members).toEqual(["alice", "bob"]);
    // What was wrong before keeps nobody from mending another group.
    await groups.change("alpha", { description: "mended later" });
    await groups.change("beta", { members: ["bob"] });
    expect(groups.problems()).toEqual([]);
  });

  it("stay as they were where the disk refuses a change", async () => {
    const { open } = setUp();
    await (await open()).create("alpha", { members: ["alice"] });
    const fileOps = createFaultyFiles();
    const groups = await open(configGroups, { fileOps });
    fileOps.fail("write", "ENOSPC", 1, 1);
    expect(await refusalOf(() => groups.change("alpha", { members: ["bob"] }))).toMatchObject({
      code: "storage_unavailable",
    });
    expect(groups.ofUser("bob")).toEqual([]);
    expect(groups.ofUser("alice").map(({ name }) => name)).toEqual(["research", "alpha"]);
  });

  it("follow a reload: one of the config that goes takes its members out of all others", async () => {
    const { open } = setUp();
    const groups = await open();
    await groups.create("alpha", { members: ["bob", "@interns"] });
    let changes = 0;
    groups.onChange(() => changes++);
    groups.configure(ofConfig('[groups.research]\nmembers = ["bob"]'));
    expect(changes).toBe(1);
    expect(groups.ofUser("ivan")).toEqual([]);
    expect(groups.ofUser("bob").map(({ name }) => name)).toEqual(["research", "alpha"]);
    expect(groups.problems()).toMatchObject([{ file: "groups/alpha.toml", reason: /got @interns$/ as never }]);
    // That keeps nobody from changing groups, that one included; a new problem is refused.
    await groups.create("fresh", { members: ["@alpha"] });
    expect((await groups.change("alpha", { members: ["@interns", "carol"] })).members).toEqual(["carol"]);
    expect(await refusalOf(() => groups.change("alpha", { members: ["@interns", "@lost"] }))).toMatchObject({
      code: "invalid_request",
      message: 'members: expected another group: @research, @fresh, got "@lost"',
    });
    expect(await groups.remove("fresh")).toBe(true);
    groups.configure(ofConfig('[groups.alpha]\nmembers = ["carol"]'));
    expect(groups.get("alpha")).toMatchObject({ origin: "config", members: ["carol"] });
  });
});
