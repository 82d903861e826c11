import { describe, expect, it } from "vitest";
import type { ApiKeys } from "../../src/identity/api-keys.ts";
import { newApiKeyText } from "../../src/identity/keys/api-key-text.ts";
import type { Clock } from "../../src/lib/clock.ts";
import { attempt } from "../support/attempt.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { bob, refusal } from "../identity/session-support.ts";

/**
 * What every store of API keys does.
 *
 * @param open an empty one, for at most 50 keys of a user
 */
export function describeApiKeys(name: string, open: (clock: Clock) => Promise<ApiKeys>): void {
  async function use() {
    const clock = createManualClock(Date.UTC(2026, 10, 22));
    const keys = await open(clock);
    return { clock, keys, find: (text: string) => attempt(() => keys.find(text)) };
  }

  describe(name, () => {
    it("finds a key by its text, and says when it was last used", async () => {
      const { keys, find, clock } = await use();
      const { key, text, signingSecret } = await keys.create(bob, { name: "laptop", models: ["a-*"] });
      expect(signingSecret).toBeUndefined();
      expect(await keys.list("bob")).toMatchObject([{ id: key.id, lastUsedAt: null }]);
      clock.advance(1000);
      expect(await find(text)).toMatchObject({
        key: { id: key.id, user: "bob", models: ["a-*"] },
        signingSecret: null,
      });
      expect(await keys.list("bob")).toMatchObject([{ id: key.id, lastUsedAt: clock.now() }]);
      expect(await keys.problems()).toEqual([]);
    });

    it("brings the signing secret of a key that signs", async () => {
      const { keys, find } = await use();
      const { text, signingSecret } = await keys.create(bob, { name: "signed", signed: true });
      expect(await find(text)).toMatchObject({ key: { signed: true }, signingSecret });
    });

    it("refuses what is unknown, mistyped, expired or revoked", async () => {
      const { keys, find, clock } = await use();
      const { text, key } = await keys.create(bob, { name: "short", expiresAt: clock.now() + 1000 });
      for (const wrong of [newApiKeyText(), text.slice(0, -1), "dsp_", ""]) {
        await expect(find(wrong)).rejects.toEqual(refusal("invalid_api_key"));
      }
      await find(text);
      clock.advance(1000);
      await expect(find(text)).rejects.toEqual(refusal("invalid_api_key"));
      const { text: other, key: revoked } = await keys.create(bob, { name: "other" });
      expect(await keys.revoke("eve", revoked.id)).toBe(false);
      expect(await keys.revoke("bob", revoked.id)).toBe(true);
      expect(await keys.revoke("bob", revoked.id)).toBe(false);
      await expect(find(other)).rejects.toEqual(refusal("invalid_api_key"));
      expect(await keys.list("bob")).toMatchObject([{ id: key.id }]);
    });

    it("makes no key older than its account, and at most 50", async () => {
      const { keys, clock } = await use();
      const young = { ...bob, created_at: new Date(clock.now() + 5000) };
      expect((await keys.create(young, { name: "x" })).key.createdAt).toBe(clock.now() + 5000);
      const made = await Promise.allSettled(Array.from({ length: 60 }, async () => keys.create(bob, { name: "x" })));
      expect(made.filter(({ status }) => status === "fulfilled")).toHaveLength(49);
      expect(made.find(({ status }) => status === "rejected")).toMatchObject({ reason: { code: "conflict" } });
    });

    it("revokes all keys of a user and none of another", async () => {
      const { keys, find } = await use();
      const made = [await keys.create(bob, { name: "a" }), await keys.create(bob, { name: "b" })];
      const eve = await keys.create({ ...bob, username: "eve" }, { name: "c" });
      expect(await keys.revokeAll("bob")).toBe(2);
      for (const { text } of made) await expect(find(text)).rejects.toEqual(refusal("invalid_api_key"));
      expect(await find(eve.text)).toMatchObject({ key: { user: "eve" } });
      expect(await keys.revokeAll("bob")).toBe(0);
    });
  });
}
