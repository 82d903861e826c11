import { describe, expect, it } from "vitest";
import type { ExternalLogins } from "../../src/identity/external-logins.ts";

const issuer = "https://id.example";
const alice = { issuer, sub: "1", user: "alice", linkedAt: 1000 };

/** What every store of linked logins does. */
export function describeExternalLogins(name: string, open: () => Promise<ExternalLogins>): void {
  describe(name, () => {
    it("finds the account of an identity by issuer and sub, and nothing else", async () => {
      const logins = await open();
      await logins.link(alice);
      expect(await logins.get({ issuer, sub: "1" })).toEqual(alice);
      expect(await logins.get({ issuer, sub: "2" })).toBeUndefined();
      expect(await logins.get({ issuer: `${issuer}/`, sub: "1" })).toBeUndefined();
      expect(await logins.get({ issuer: `${issuer}","1`, sub: "" })).toBeUndefined();
    });

    it("links an identity to one account only, however many ask at once", async () => {
      const logins = await open();
      const users = Array.from({ length: 8 }, (_, index) => `user${index}`);
      const results = await Promise.allSettled(users.map(async (user) => logins.link({ ...alice, user })));
      expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
      const owners = await Promise.all(users.map(async (user) => logins.ofUser(user)));
      expect(owners.flat()).toHaveLength(1);
      expect(owners.flat()).toEqual([await logins.get(alice)]);
    });

    it("lists those of an account, and forgets what is unlinked", async () => {
      const logins = await open();
      const work = { ...alice, issuer: "https://work.example", linkedAt: 2000 };
      await logins.link(alice);
      await logins.link(work);
      await logins.link({ ...work, linkedAt: 3000 });
      expect(await logins.ofUser("alice")).toEqual([alice, work]);
      expect(await logins.unlink("bob", alice)).toBe(false);
      expect(await logins.unlink("alice", alice)).toBe(true);
      expect(await logins.unlink("alice", alice)).toBe(false);
      expect(await logins.ofUser("alice")).toEqual([work]);
      await logins.link({ ...alice, user: "bob" });
      await logins.unlinkAll("alice");
      expect(await logins.ofUser("alice")).toEqual([]);
      expect(await logins.get(work)).toBeUndefined();
      expect(await logins.get(alice)).toMatchObject({ user: "bob" });
    });

    it("refuses an account more than 20", async () => {
      const logins = await open();
      for (let sub = 0; sub < 20; sub++) await logins.link({ ...alice, sub: `s${sub}` });
      await expect((async () => logins.link({ ...alice, sub: "s20" }))()).rejects.toMatchObject({ code: "conflict" });
      await logins.link({ ...alice, sub: "s3" });
      expect(await logins.ofUser("alice")).toHaveLength(20);
    });
  });
}
