import { expect, it } from "vitest";
import type { Account } from "../../src/accounts/account-schema.ts";
import { createTokenReuse } from "../../src/accounts/token-reuse.ts";
import { createManualClock } from "../support/manual-clock.ts";

it("forgets the oldest logins beyond its bound", () => {
  const clock = createManualClock(0);
  const reuse = createTokenReuse({ clock, reuseSeconds: 10, maxEntries: 3 });
  const digest = Buffer.alloc(32);
  const accounts = ["a", "b", "c", "d"].map((username): Account => ({
    username,
    password_hash: "",
    quota_tier: "basic",
    roles: ["user"],
    is_active: true,
    token_version: 0,
    metadata: {},
  }));
  for (const account of accounts) reuse.keep(account, digest, { token: account.username, expiresAt: 1e6 });
  expect(accounts.map((account) => reuse.find(account, digest)?.token)).toEqual([undefined, "b", "c", "d"]);
});
