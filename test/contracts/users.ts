import { describe, expect, it } from "vitest";
import type { Clock } from "../../src/lib/clock.ts";
import type { Users } from "../../src/identity/users.ts";
import { attempt } from "../support/attempt.ts";
import { createManualClock } from "../support/manual-clock.ts";

const now = Date.UTC(2026, 10, 22);
const bob = { username: "bob", password: "correct horse", quota_tier: "basic" };

/**
 * What every store of users does.
 *
 * @param open an empty one with the tiers basic and premium, by this clock
 */
export function describeUsers(name: string, open: (clock: Clock) => Promise<Users>): void {
  describe(name, () => {
    it("finds a user that it has made, without the password", async () => {
      const users = await open(createManualClock(now));
      expect(await users.get("bob")).toBeUndefined();
      const made = await users.create({ ...bob, metadata: { team: "a" } });
      expect(made).toMatchObject({ username: "bob", roles: ["user"], is_active: true, metadata: { team: "a" } });
      expect(JSON.stringify(made)).not.toContain(bob.password);
      expect(await users.get("bob")).toEqual(made);
      expect(await users.names()).toEqual(["bob"]);
      expect(await users.problems()).toEqual([]);
    });

    it("makes one of two users of a name that come at once", async () => {
      const users = await open(createManualClock(now));
      const both = await Promise.allSettled([attempt(() => users.create(bob)), attempt(() => users.create(bob))]);
      expect(both.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
      await expect(attempt(() => users.create(bob))).rejects.toMatchObject({ code: "conflict", extras: {} });
    });

    it("refuses values that are none, and names that could be paths", async () => {
      const users = await open(createManualClock(now));
      for (const wrong of [{ username: "../x" }, { username: "Admin" }, { quota_tier: "gold" }, { max_parallel: 0 }]) {
        await expect(attempt(() => users.create({ ...bob, ...wrong }))).rejects.toMatchObject({
          code: "invalid_request",
        });
      }
      await expect(attempt(() => users.update("nobody", {}))).rejects.toMatchObject({ code: "not_found" });
      expect(await users.names()).toEqual([]);
    });

    it("loses none of several changes at once", async () => {
      const users = await open(createManualClock(now));
      await users.create(bob);
      await Promise.all([
        users.update("bob", { quota_tier: "premium" }),
        users.update("bob", { max_parallel: 7 }),
        users.update("bob", ({ roles }) => ({ roles: [...roles, "auditor"] })),
        users.update("bob", ({ roles }) => ({ roles: [...roles, "admin"] })),
      ]);
      const changed = await users.get("bob");
      expect(changed).toMatchObject({ quota_tier: "premium", max_parallel: 7 });
      expect([...(changed?.roles ?? [])].sort()).toEqual(["admin", "auditor", "user"]);
    });

    it("changes nothing that the check refuses, at once or later", async () => {
      const users = await open(createManualClock(now));
      const made = await users.create(bob);
      const seen: unknown[] = [];
      for (const later of [undefined, Promise.resolve()]) {
        const check = async (before: unknown, after: { readonly quota_tier: string }): Promise<void> => {
          await later;
          seen.push(before, after.quota_tier);
          throw new Error("no");
        };
        await expect(attempt(() => users.update("bob", { quota_tier: "premium" }, check))).rejects.toThrow("no");
      }
      expect(seen).toEqual([made, "premium", made, "premium"]);
      expect(await users.get("bob")).toEqual(made);
    });

    it("ends the tokens of an old password and of a disabled user, and of nothing else", async () => {
      const clock = createManualClock(now);
      const users = await open(clock);
      const versions = [(await users.create(bob)).token_version];
      for (const patch of [{ quota_tier: "premium" }, { password: "another one" }, { is_active: false }]) {
        clock.advance(1);
        versions.push((await users.update("bob", patch)).token_version);
      }
      const [made = 0, tier, password = 0, disabled] = versions;
      expect(tier).toBe(made);
      expect(password).toBeGreaterThan(made);
      expect(disabled).toBeGreaterThan(password);
    });

    it("replaces a hash only while it is the one that was verified", async () => {
      const users = await open(createManualClock(now));
      const { password_hash: old } = await users.create(bob);
      const stronger = old.replace(/[A-Za-z0-9+/]{4}$/, "AAAA");
      await users.rehash("bob", "another", stronger);
      expect((await users.get("bob"))?.password_hash).toBe(old);
      await users.rehash("bob", old, stronger);
      expect((await users.get("bob"))?.password_hash).toBe(stronger);
    });

    it("shows its users in pages, by name, as far as they are asked for", async () => {
      const users = await open(createManualClock(now));
      for (const name of ["zoe", "b2", "b1"]) await users.create({ ...bob, username: name });
      await users.create({ ...bob, username: "root", roles: ["admin"] });
      await users.update("b2", { is_active: false });
      const pageOf = async (query: object) => {
        const page = await users.search({ limit: 2, ...query });
        return [page.users.map(({ username }) => username), page.nextCursor];
      };
      expect(await pageOf({})).toEqual([["b1", "b2"], "b2"]);
      expect(await pageOf({ cursor: "b2" })).toEqual([["root", "zoe"], null]);
      expect(await pageOf({ search: "B", state: "active" })).toEqual([["b1"], null]);
      expect(await pageOf({ role: "admin" })).toEqual([["root"], null]);
    });

    it("archives a user whom the check lets go, and ends the access after the user can't come in any more", async () => {
      const users = await open(createManualClock(now));
      await users.create(bob);
      const refuse = () => Promise.reject(new Error("no"));
      const never = () => Promise.reject(new Error("not called"));
      await expect(attempt(() => users.archive("bob", refuse, never))).rejects.toThrow("no");
      let atEnd: unknown = "not called";
      await users.archive(
        "bob",
        () => undefined,
        async () => {
          atEnd = await users.get("bob");
        },
      );
      expect(atEnd).toBeUndefined();
      expect(await users.names()).toEqual([]);
      expect((await users.create(bob)).username).toBe("bob");
    });
  });
}
