import { describe, expect, it } from "vitest";
import type { Account } from "../../src/identity/account-schema.ts";
import type { Sessions } from "../../src/identity/sessions.ts";
import type { Clock } from "../../src/lib/clock.ts";
import { attempt } from "../support/attempt.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { bob, day, laptop, refusal } from "../identity/session-support.ts";

/** Where sessions find their users, and the time. */
export interface SessionsContext {
  readonly clock: Clock;
  readonly findAccount: (name: string) => Account | undefined;
}

/**
 * What every store of sessions does.
 *
 * @param open an empty one: 30 days at most, 7 days idle, 10 s leeway, 50 sessions of a user
 */
export function describeSessions(name: string, open: (context: SessionsContext) => Promise<Sessions>): void {
  async function use() {
    const clock = createManualClock(Date.UTC(2026, 10, 22));
    const test = { account: bob };
    const sessions = await open({ clock, findAccount: (user) => (user === "bob" ? test.account : undefined) });
    const refresh = (token: string) => attempt(() => sessions.refresh(token, laptop));
    return { test, clock, sessions, refresh };
  }

  describe(name, () => {
    it("continues a session by one refresh token after another", async () => {
      const { sessions, refresh, clock } = await use();
      const first = await sessions.open(bob, laptop);
      expect(await sessions.isUntouched(first.sessionId)).toBe(true);
      clock.advance(day);
      const second = await refresh(first.refreshToken);
      expect(second).toMatchObject({ sessionId: first.sessionId, account: bob });
      expect(second.refreshToken).not.toBe(first.refreshToken);
      expect([await sessions.isLive(first.sessionId), await sessions.isUntouched(first.sessionId)]).toEqual([
        true,
        false,
      ]);
      expect(await sessions.list("bob")).toMatchObject([
        { id: first.sessionId, usedAt: clock.now(), client: "laptop" },
      ]);
    });

    it("gives 50 exchanges of a token at once the same successor, and it works", async () => {
      const { sessions, refresh } = await use();
      const { refreshToken } = await sessions.open(bob, laptop);
      const all = await Promise.all(Array.from({ length: 50 }, () => refresh(refreshToken)));
      const successors = [...new Set(all.map((grant) => grant.refreshToken))];
      expect(successors).toHaveLength(1);
      await refresh(successors[0] ?? "");
    });

    it("ends the session of a token that comes again after the leeway", async () => {
      const { sessions, refresh, clock } = await use();
      const { refreshToken: stolen, sessionId } = await sessions.open(bob, laptop);
      const { refreshToken } = await refresh(stolen);
      clock.advance(10_000);
      await expect(refresh(stolen)).rejects.toEqual(refusal("invalid_token"));
      expect(await sessions.isLive(sessionId)).toBe(false);
      await expect(refresh(refreshToken)).rejects.toEqual(refusal("invalid_token"));
    });

    it("refuses what never was a token, what has expired, and whom the account doesn't let in", async () => {
      const { sessions, refresh, clock, test } = await use();
      await expect(refresh("dsr_nothing")).rejects.toEqual(refusal("invalid_token"));
      const { refreshToken } = await sessions.open(bob, laptop);
      test.account = { ...bob, is_active: false };
      await expect(refresh(refreshToken)).rejects.toEqual(refusal("account_disabled"));
      test.account = bob;
      const { refreshToken: next } = await refresh(refreshToken);
      clock.advance(7 * day);
      await expect(refresh(next)).rejects.toEqual(refusal("token_expired"));
      expect(await sessions.list("bob")).toEqual([]);
    });

    it("opens a session of a browser by a cookie, which is no refresh token", async () => {
      const { sessions, refresh, clock } = await use();
      const { cookie, sessionId } = await sessions.openCookie(bob, laptop);
      expect(cookie).toMatch(/^dsc_/);
      const whose = { id: sessionId, user: "bob", version: bob.token_version, createdAt: clock.now() };
      expect(await sessions.ofCookie(cookie)).toEqual(whose);
      clock.advance(day);
      expect(await sessions.ofCookie(cookie)).toEqual(whose);
      expect(await sessions.list("bob")).toMatchObject([{ id: sessionId, expiresAt: whose.createdAt + 2 * day }]);
      expect(await sessions.end("bob", sessionId)).toBe(true);
      expect(await sessions.ofCookie(cookie)).toBeUndefined();

      const { cookie: stolen } = await sessions.openCookie(bob, laptop);
      await expect(refresh(stolen.replace("dsc_", "dsr_"))).rejects.toEqual(refusal("invalid_token"));
      expect(await sessions.ofCookie(stolen)).toBeUndefined();

      const { refreshToken } = await sessions.open(bob, laptop);
      for (const text of [refreshToken, refreshToken.replace("dsr_", "dsc_"), "dsc_nothing", ""])
        expect(await sessions.ofCookie(text)).toBeUndefined();
      const { cookie: idle } = await sessions.openCookie(bob, laptop);
      clock.advance(2 * day - 1);
      expect(await sessions.ofCookie(idle)).toBeDefined();
      expect(await sessions.list("bob")).toHaveLength(2);
      clock.advance(1);
      expect(await sessions.ofCookie(idle)).toBeUndefined();
      expect(await sessions.list("bob")).toMatchObject([{ expiresAt: clock.now() + 5 * day }]);
    });

    it("ends with the token_version of its account", async () => {
      const { sessions, refresh, test } = await use();
      const { refreshToken } = await sessions.open(bob, laptop);
      test.account = { ...bob, token_version: 2 };
      expect(await sessions.list("bob")).toEqual([]);
      await expect(refresh(refreshToken)).rejects.toEqual(refusal("invalid_token"));
    });

    it("ends one session of a user, those of a token, or all", async () => {
      const { sessions } = await use();
      const [first, second] = [await sessions.open(bob, laptop), await sessions.open(bob, laptop)];
      expect(await sessions.end("eve", first.sessionId)).toBe(false);
      expect(await sessions.end("bob", first.sessionId)).toBe(true);
      expect(await sessions.end("bob", first.sessionId)).toBe(false);
      expect(await sessions.isLive(first.sessionId)).toBe(false);
      expect(await sessions.endByToken(first.refreshToken)).toBeUndefined();
      expect(await sessions.endByToken(second.refreshToken)).toEqual({ user: "bob", id: second.sessionId });
      await sessions.open(bob, laptop);
      await sessions.open(bob, laptop);
      expect(await sessions.endAll("bob")).toBe(2);
      expect(await sessions.list("bob")).toEqual([]);
      expect(await sessions.problems()).toEqual([]);
    });

    it("keeps at most 50 sessions of a user", async () => {
      const { sessions, clock } = await use();
      const { sessionId: oldest } = await sessions.open(bob, laptop);
      for (let index = 0; index < 50; index++) {
        clock.advance(1);
        await sessions.open(bob, laptop);
      }
      expect(await sessions.list("bob")).toHaveLength(50);
      expect(await sessions.isLive(oldest)).toBe(false);
    });
  });
}
