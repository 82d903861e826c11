import { describe, expect, it } from "vitest";
import type { LoginGuard } from "../../src/identity/login-guard.ts";
import type { Clock } from "../../src/lib/clock.ts";
import { attempt } from "../support/attempt.ts";
import { address, attemptOf } from "../support/login-guard.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { refusal } from "../identity/session-support.ts";

/**
 * What every login guard does.
 *
 * @param open a new one: five free failures, then 1 s, 2 s and so on
 */
export function describeLoginGuard(name: string, open: (clock: Clock) => Promise<LoginGuard>): void {
  const blocked = refusal("login_blocked");
  const home = "192.0.2.1";

  async function use() {
    const clock = createManualClock(1_000_000);
    const guard = await open(clock);
    const start = (user: string, ip: string) => attempt(() => guard.start(attemptOf(user, ip)));
    const check = (user: string, ip: string) => attempt(() => guard.check(attemptOf(user, ip)));
    const fail = async (times: number, user: (index: number) => string, ip: (index: number) => string) => {
      for (let index = 0; index < times; index++) await (await start(user(index), ip(index))).failed();
    };
    return { clock, guard, start, check, fail };
  }

  describe(name, () => {
    it("lets five failures at an account pass, then asks for a wait", async () => {
      const { start, check, fail, clock } = await use();
      await fail(5, () => "alice", address);
      await expect(start("alice", home)).rejects.toMatchObject({
        code: "login_blocked",
        status: 429,
        extras: { retryAfterSeconds: 1 },
      });
      await expect(check("alice", home)).rejects.toEqual(blocked);
      await check("bob", home);
      clock.advance(1000);
      await (await start("alice", home)).succeeded();
      await check("alice", "203.0.113.1");
    });

    it("slows down an address that tries many names, whether they exist or not", async () => {
      const { check, fail } = await use();
      await fail(
        5,
        (index) => `name${index}`,
        () => home,
      );
      await expect(check("alice", home)).rejects.toEqual(blocked);
      await check("alice", "203.0.113.1");
    });

    it("begins no more guesses at once than may still fail", async () => {
      const { start } = await use();
      const begun = await Promise.allSettled(Array.from({ length: 50 }, (_, index) => start("alice", address(index))));
      expect(begun.filter(({ status }) => status === "fulfilled")).toHaveLength(5);
    });

    it("counts no attempt that was dropped", async () => {
      const { start, check } = await use();
      for (let index = 0; index < 20; index++) await (await start("alice", home)).dropped();
      await check("alice", home);
    });

    it("lets the owner in from a known address while others guess", async () => {
      const { start, check, fail } = await use();
      await (await start("alice", home)).succeeded();
      await fail(5, () => "alice", address);
      await expect(check("alice", "203.0.113.1")).rejects.toEqual(blocked);
      const owner = await start("alice", home);
      expect(owner.isKnown).toBe(true);
      await owner.succeeded();
    });

    it("counts codes apart from passwords, from all addresses together, and shows and forgets them by the user", async () => {
      const { guard, start, check } = await use();
      const code = (ip: string) => attempt(() => guard.start({ ...attemptOf("alice", ip), guesses: "code" }));
      for (let index = 0; index < 5; index++) await (await code(address(index))).failed();
      await expect(code("203.0.113.1")).rejects.toMatchObject({ extras: { retryAfterSeconds: 1 } });
      await check("alice", "203.0.113.1");
      expect(await guard.locked()).toMatchObject([{ scope: "account", user: "alice", guesses: "code", failures: 5 }]);
      const unlock = { user: "alice", known: true, admin: "root", ip: home, traceId: "t" };
      expect(await guard.unlock(unlock)).toBe(true);
      expect(await guard.unlock(unlock)).toBe(false);
      const begun = await Promise.allSettled(Array.from({ length: 20 }, (_, index) => code(address(index))));
      expect(begun.filter(({ status }) => status === "fulfilled")).toHaveLength(5);
      for (const one of begun) if (one.status === "fulfilled") await one.value.dropped();

      // Who guesses passwords uses up no codes, and at a known address the owner's codes are counted for it alone.
      await (await start("alice", home)).succeeded();
      for (let index = 100; index < 105; index++) await (await code(address(index))).failed();
      await expect(code("203.0.113.1")).rejects.toEqual(blocked);
      await (await code(home)).succeeded();
      expect(await guard.unlock(unlock)).toBe(true);
      for (let index = 200; index < 205; index++) await (await start("alice", address(index))).failed();
      await expect(start("alice", "203.0.113.1")).rejects.toEqual(blocked);
      await (await code("203.0.113.1")).dropped();
    });

    it("shows who has to wait, and forgets an account's failures when told to", async () => {
      const { guard, check, fail } = await use();
      await fail(5, () => "alice", address);
      expect(await guard.locked()).toMatchObject([
        { scope: "account", user: "alice", address: null, guesses: "password", failures: 5 },
      ]);
      const unlock = { user: "alice", known: true, admin: "root", ip: home, traceId: "t" };
      expect(await guard.unlock(unlock)).toBe(true);
      expect(await guard.unlock(unlock)).toBe(false);
      await check("alice", home);
      expect(await guard.locked()).toEqual([]);
    });
  });
}
