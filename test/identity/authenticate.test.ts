import { describe, expect, it } from "vitest";
import { createAuthenticate } from "../../src/identity/authenticate.ts";
import type { Account } from "../../src/identity/account-schema.ts";
import { newApiKeyText } from "../../src/identity/keys/api-key-text.ts";
import { toApiKey, type ApiKey } from "../../src/identity/keys/api-key.ts";
import { newClaims } from "../../src/identity/sessions/claims.ts";
import { AppError } from "../../src/errors.ts";
import { createManualClock } from "../support/manual-clock.ts";

const now = Date.UTC(2026, 10, 22, 12);
const bob: Account = {
  username: "bob",
  password_hash: "",
  quota_tier: "basic",
  roles: ["user"],
  is_active: true,
  token_version: 3,
  metadata: {},
};
const good = newClaims(bob, { issuer: "", audience: "", now, lifeSeconds: 900, id: "one", sessionId: "live" });
const keyText = newApiKeyText();

function useAuthenticate(account: Partial<Account> = {}, claims: object = {}, terms: { addresses?: string[] } = {}) {
  const clock = createManualClock(now);
  const row = { id: "k", name: "key", hash: "", created_at: new Date(now), ...terms };
  const apiKey: ApiKey = toApiKey("bob", row);
  const authenticate = createAuthenticate({
    users: { get: (name) => (name === "bob" ? { ...bob, ...account } : undefined) },
    tokens: { verify: () => ({ ...good, ...claims }) },
    sessions: { isLive: (id) => id === "live" },
    apiKeys: {
      find: (text) => {
        if (text !== keyText) throw new AppError("invalid_api_key");
        return { key: apiKey, signingSecret: null };
      },
    },
    clock,
  });
  return { clock, apiKey, authenticate: (credential: string, ip = "192.0.2.1") => authenticate(credential, ip) };
}

const withCode = (code: string, more: object = {}): unknown => expect.objectContaining({ code, ...more });

describe("an access token", () => {
  it("leads to its account and session", async () => {
    expect(await useAuthenticate().authenticate("token")).toEqual({
      account: bob,
      apiKey: null,
      signingSecret: null,
      sessionId: "live",
    });
  });

  it("is refused for a removed account, an older version, a newer one and an ended session", async () => {
    for (const claims of [{ sub: "eve" }, { ver: 2 }, { ver: 4 }, { sid: "ended" }]) {
      await expect(useAuthenticate({}, claims).authenticate("token")).rejects.toEqual(withCode("invalid_token"));
    }
  });

  it("of a disabled account says that it is disabled, though disabling has ended the token", async () => {
    const { authenticate } = useAuthenticate({ is_active: false, token_version: 9 });
    await expect(authenticate("token")).rejects.toEqual(
      withCode("account_disabled", { extras: { details: { reason: "disabled" } } }),
    );
  });

  it("works from active_from until just before expires_at, and again from banned_until on", async () => {
    const soon = new Date(now + 1000);
    const expired = useAuthenticate({ expires_at: soon });
    await expired.authenticate("token");
    expired.clock.advance(1000);
    await expect(expired.authenticate("token")).rejects.toEqual(withCode("account_disabled"));
    for (const fields of [{ active_from: soon }, { banned_until: soon, ban_reason: "spam" }]) {
      const waiting = useAuthenticate(fields);
      await expect(waiting.authenticate("token")).rejects.toEqual(withCode("account_disabled"));
      waiting.clock.advance(1000);
      expect((await waiting.authenticate("token")).account.username).toBe("bob");
    }
  });

  it("of a banned account tells until when and why", async () => {
    const { authenticate } = useAuthenticate({ banned_until: new Date(now + 1000), ban_reason: "spam" });
    const details = { reason: "banned", at: "2026-11-22T12:00:01.000Z", ban_reason: "spam" };
    await expect(authenticate("token")).rejects.toEqual(
      withCode("account_disabled", { extras: expect.objectContaining({ details }) }),
    );
  });
});

describe("an API key", () => {
  it("leads to its account", async () => {
    const { authenticate, apiKey } = useAuthenticate();
    expect(await authenticate(keyText)).toEqual({ account: bob, apiKey, signingSecret: null, sessionId: null });
  });

  it("stops with its account", async () => {
    await expect(useAuthenticate({ is_active: false }).authenticate(keyText)).rejects.toEqual(
      withCode("account_disabled"),
    );
    await expect(useAuthenticate({ expires_at: new Date(now) }).authenticate(keyText)).rejects.toEqual(
      withCode("account_disabled"),
    );
  });

  it("of somebody who had the user's name before is refused", async () => {
    await expect(useAuthenticate({ created_at: new Date(now + 1) }).authenticate(keyText)).rejects.toEqual(
      withCode("invalid_api_key"),
    );
    expect((await useAuthenticate({ created_at: new Date(now) }).authenticate(keyText)).account.username).toBe("bob");
  });

  it("works from its addresses only", async () => {
    const { authenticate } = useAuthenticate({}, {}, { addresses: ["192.0.2.0/24", "2001:db8::/32"] });
    for (const ip of ["192.0.2.9", "::ffff:192.0.2.9", "2001:db8::1"])
      expect((await authenticate(keyText, ip)).apiKey?.id).toBe("k");
    for (const ip of ["192.0.3.1", "::1", ""]) {
      await expect(authenticate(keyText, ip)).rejects.toEqual(withCode("address_not_allowed"));
    }
  });
});
