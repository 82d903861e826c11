import { expect, it } from "vitest";
import type { Account } from "../../src/identity/account-schema.ts";
import type { TokenPair } from "../../src/identity/sessions/token-pairs.ts";
import { createTokenReuse, type LoginKey } from "../../src/identity/sessions/token-reuse.ts";
import { createManualClock } from "../support/manual-clock.ts";

function loginOf(username: string): LoginKey {
  const account: Account = {
    username,
    password_hash: "",
    quota_tier: "basic",
    roles: ["user"],
    is_active: true,
    token_version: 0,
    metadata: {},
  };
  return { account, passwordDigest: Buffer.alloc(32), origin: { ip: "", client: "", traceId: "" } };
}

function pairOf({ account }: LoginKey): TokenPair {
  return { account, sessionId: "", token: account.username, expiresAt: 1e6, refreshToken: "", refreshExpiresAt: 1e6 };
}

it("forgets the oldest logins beyond its bound", async () => {
  const clock = createManualClock(0);
  const reuse = createTokenReuse({ clock, reuseSeconds: () => 10, isUntouched: () => true, maxEntries: 3 });
  const logins = ["a", "b", "c", "d"].map(loginOf);
  for (const login of logins) await reuse.findOrKeep(login, () => Promise.resolve(pairOf(login)));
  const found = logins.map((login) => reuse.find(login));
  expect((await Promise.all(found)).map((pair) => pair?.token)).toEqual([undefined, "b", "c", "d"]);
});

it("gives out no token that the wall clock has made old, however little time has passed", async () => {
  let now = 0;
  const reuse = createTokenReuse({
    clock: { now: () => now, monotonic: () => 0 },
    reuseSeconds: () => 10,
    isUntouched: () => true,
  });
  const login = loginOf("alice");
  await reuse.findOrKeep(login, () => Promise.resolve(pairOf(login)));
  now = 499_999;
  expect(await reuse.find(login)).toBeDefined();
  now = 500_000;
  expect(await reuse.find(login)).toBeUndefined();
});
