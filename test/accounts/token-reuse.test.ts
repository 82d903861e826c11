import { expect, it } from "vitest";
import type { Account } from "../../src/accounts/account-schema.ts";
import { createTokenReuse, type LoginKey } from "../../src/accounts/token-reuse.ts";
import { createManualClock } from "../support/manual-clock.ts";

it("forgets the oldest logins beyond its bound", async () => {
  const clock = createManualClock(0);
  const reuse = createTokenReuse({ clock, reuseSeconds: 10, isUntouched: () => true, maxEntries: 3 });
  const logins = ["a", "b", "c", "d"].map((username): LoginKey => {
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
  });
  for (const login of logins) {
    const { account } = login;
    const tokens = { token: account.username, expiresAt: 1e6, refreshToken: "", refreshExpiresAt: 1e6 };
    reuse.keep(login, Promise.resolve({ account, sessionId: "", ...tokens }));
  }
  const found = logins.map((login) => reuse.find(login) ?? Promise.resolve(undefined));
  expect((await Promise.all(found)).map((pair) => pair?.token)).toEqual([undefined, "b", "c", "d"]);
});
