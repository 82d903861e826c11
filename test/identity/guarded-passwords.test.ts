import { describe, expect, it } from "vitest";
import { createCheckGuarded } from "../../src/identity/login/login.ts";
import { createPasswords } from "../../src/identity/passwords/password.ts";
import { useGuard } from "../support/login-guard.ts";
import { createFakeHasher, fakeHash } from "./support.ts";

const attempt = { user: "alice", known: true, ip: "192.0.2.1", traceId: "t" };
const hash = fakeHash("correct horse");

function useGuarded(maxWaiting = 50) {
  const fake = createFakeHasher();
  const { guard, clock } = useGuard();
  const passwords = createPasswords({ maxHashes: 2, maxWaiting, hasher: fake.hasher });
  return { ...fake, guard, clock, guarded: createCheckGuarded(guard, passwords) };
}

describe("guarded passwords", () => {
  it("refuse after five wrong ones without a hash, and say for how long", async () => {
    const { guarded, calls, clock } = useGuarded();
    for (let count = 0; count < 5; count += 1) {
      expect(await guarded(attempt, hash, "wrong horse")).toBe(false);
    }
    await expect(guarded(attempt, hash, "correct horse")).rejects.toMatchObject({
      code: "login_blocked",
      status: 429,
      extras: { retryAfterSeconds: 1 },
    });
    expect(calls.verify).toBe(5);
    clock.advance(1000);
    expect(await guarded(attempt, hash, "correct horse")).toBe(true);
    expect(await guarded({ ...attempt, ip: "203.0.113.9" }, hash, "correct horse")).toBe(true);
  });

  it("don't count what was not checked for want of a place", async () => {
    const { guarded, guard, hold } = useGuarded(1);
    const open = hold();
    const tries = Array.from({ length: 5 }, () => guarded(attempt, hash, "wrong horse"));
    const results = Promise.allSettled(tries);
    open();
    expect((await results).map(({ status }) => status)).toEqual([
      "fulfilled",
      "fulfilled",
      "fulfilled",
      "rejected",
      "rejected",
    ]);
    expect(guard.check("alice", "203.0.113.9")).toBeNull();
  });
});
