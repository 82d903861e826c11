import { describe, expect, it } from "vitest";
import type { Group, Groups } from "../../src/identity/groups.ts";
import { attempt } from "../support/attempt.ts";
import { refusal } from "../identity/session-support.ts";

/** The TOML of the groups that the config has in these tests. */
export const configGroups = `
[groups.research]
members = ["alice", "@interns"]
owners = ["olga"]
models = ["deepseek-*"]
max_parallel = 4
limits = [{ metric = "requests", per = "day", max = 10 }]
[groups.interns]
members = ["ivan"]
`;

/**
 * What every store of groups does.
 *
 * @param open one with the groups of configGroups, and no others
 */
export function describeGroups(name: string, open: () => Promise<Groups>): void {
  const namesOf = async (groups: Groups, user: string) => (await groups.ofUser(user)).map((group) => group.name);

  describe(name, () => {
    it("has those of the config, with the members of the groups inside them", async () => {
      const groups = await open();
      const research = await groups.get("research");
      expect(research).toMatchObject({
        name: "research",
        members: ["alice", "ivan"],
        owners: ["olga"],
        maxParallel: 4,
      });
      expect(research).toMatchObject({ origin: "config", listed: ["alice", "@interns"], models: ["deepseek-*"] });
      expect([research?.has("ivan"), research?.has("olga")]).toEqual([true, false]);
      expect([research?.allowsModel("deepseek-chat"), research?.allowsModel("glm-4")]).toEqual([true, false]);
      expect(await namesOf(groups, "ivan")).toEqual(["research", "interns"]);
      expect(await namesOf(groups, "nobody")).toEqual([]);
      expect(await groups.get("nothing")).toBeUndefined();
      expect(await groups.problems()).toEqual([]);
    });

    it("makes others, which come after them by name", async () => {
      const groups = await open();
      await groups.create("zeta", { members: ["alice", "@research"] });
      const made = await groups.create("alpha", { members: ["alice"], models: ["glm-*"], description: "for glm" });
      expect(made).toMatchObject({ name: "alpha", origin: "admin", maxParallel: null, description: "for glm" });
      expect(made.allowsModel("deepseek-chat")).toBe(false);
      expect((await groups.list()).map((group) => group.name)).toEqual(["research", "interns", "alpha", "zeta"]);
      expect(await namesOf(groups, "alice")).toEqual(["research", "alpha", "zeta"]);
      expect(await namesOf(groups, "ivan")).toEqual(["research", "interns", "zeta"]);
    });

    it("changes them, and what a request has of one stays as it was", async () => {
      const groups = await open();
      const before = await groups.create("alpha", { members: ["alice"], max_parallel: 3, models: ["a"] });
      const after = await groups.change("alpha", { members: ["bob"], models: null, description: undefined });
      expect(after).toMatchObject({ members: ["bob"], maxParallel: 3, models: null });
      expect([before.has("alice"), before.has("bob")]).toEqual([true, false]);
      expect(await namesOf(groups, "alice")).toEqual(["research"]);
      await Promise.all(
        ["carol", "dave", "erin"].map((user) =>
          attempt(() => groups.change("alpha", ({ listed }) => ({ members: [...listed, user] }))),
        ),
      );
      expect((await groups.get("alpha"))?.members).toEqual(["bob", "carol", "dave", "erin"]);
    });

    it("removes them, but none that is inside another", async () => {
      const groups = await open();
      await groups.create("alpha", { members: ["alice"] });
      await groups.create("beta", { members: ["@alpha"] });
      await expect(attempt(() => groups.remove("alpha"))).rejects.toEqual(refusal("conflict"));
      expect(await groups.remove("beta")).toBe(true);
      expect(await groups.remove("alpha")).toBe(true);
      expect(await groups.remove("alpha")).toBe(false);
      expect(await groups.get("alpha")).toBeUndefined();
      expect(await namesOf(groups, "alice")).toEqual(["research"]);
    });

    it("ends what is bound to one that is removed before its name is free, and keeps it where that fails", async () => {
      const groups = await open();
      await groups.create("alpha", { members: ["alice"] });
      const fails = async () => groups.remove("alpha", () => Promise.reject(new Error("out of order")));
      await expect(fails()).rejects.toThrow("out of order");
      expect(await namesOf(groups, "alice")).toEqual(["research", "alpha"]);
      const steps: string[] = [];
      const removed = attempt(() =>
        groups.remove("alpha", async () => {
          steps.push(`ended in ${(await namesOf(groups, "alice")).join(", ")}`);
        }),
      );
      await attempt(() => groups.create("alpha", {}));
      steps.push("made again");
      expect(await removed).toBe(true);
      expect(steps).toEqual(["ended in research", "made again"]);
    });

    it("shows the group as it is stored when it is removed, after all changes before", async () => {
      const groups = await open();
      await groups.create("alpha", { members: ["alice"] });
      const refuse = ({ listed }: Group): void => {
        throw new Error(`it has ${listed.join(", ")}`);
      };
      const [, removed] = await Promise.allSettled([
        attempt(() => groups.change("alpha", { members: ["bob"] })),
        attempt(() => groups.remove("alpha", undefined, refuse)),
      ]);
      expect(removed).toMatchObject({ status: "rejected", reason: { message: "it has bob" } });
      expect((await groups.get("alpha"))?.members).toEqual(["bob"]);
    });

    it("refuses what it can't have, and changes nothing", async () => {
      const groups = await open();
      await groups.create("alpha", { members: ["alice"] });
      const refused: [string, () => unknown][] = [
        ["conflict", () => groups.create("alpha", {})],
        ["conflict", () => groups.create("research", {})],
        ["conflict", () => groups.change("research", { description: "new" })],
        ["conflict", () => groups.remove("research")],
        ["not_found", () => groups.change("nothing", {})],
        ["invalid_request", () => groups.create("../etc", {})],
        ["invalid_request", () => groups.create("con", {})],
        ["invalid_request", () => groups.create("Alpha", {})],
        ["invalid_request", () => groups.create("beta", { members: ["@nothing"] })],
        ["invalid_request", () => groups.create("beta", { members: ["@beta"] })],
        ["invalid_request", () => groups.create("beta", { max_parallel: 0 })],
        ["invalid_request", () => groups.create("beta", { limits: [{ metric: "requests", per: "day", max: 0.5 }] })],
        ["invalid_request", () => groups.create("beta", { models: [] })],
        ["invalid_request", () => groups.change("alpha", { members: ["@alpha"] })],
      ];
      for (const [code, call] of refused) await expect(attempt(call)).rejects.toEqual(refusal(code));
      expect((await groups.list()).map((group) => group.name)).toEqual(["research", "interns", "alpha"]);
      expect((await groups.get("alpha"))?.members).toEqual(["alice"]);
    });

    it("refuses a cycle through several groups", async () => {
      const groups = await open();
      await groups.create("alpha", { members: ["alice"] });
      await groups.create("beta", { members: ["@alpha"] });
      await expect(attempt(() => groups.change("alpha", { members: ["@beta"] }))).rejects.toMatchObject({
        code: "invalid_request",
        message: expect.stringContaining("expected no cycle") as string,
        extras: { param: "members" },
      });
    });
  });
}
