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
    findAccount: (name) => (name === "bob" ? { ...bob, ...account } : undefined),
    verifyToken: () => ({ ...good, ...claims }),
    sessions: { isLive: (id) => id === "live" },
    apiKeys: {
      check: (text) => {
        if (text !== keyText) throw new AppError("invalid_api_key");
        return apiKey;
      },
    },
    clock,
  });
  return { clock, apiKey, authenticate: (credential: string, ip = "192.0.2.1") => authenticate(credential, ip) };
}

const withCode = (code: string, more: object = {}): unknown => expect.objectContaining({ code, ...more });

describe("an access token", () => {
  it("leads to its account and session", () => {
    expect(useAuthenticate().authenticate("token")).toEqual({ account: bob, apiKey: null, sessionId: "live" });
  });

  it("is refused for a removed account, an older version, a newer one and an ended session", () => {
    for (const claims of [{ sub: "eve" }, { ver: 2 }, { ver: 4 }, { sid: "ended" }]) {
      expect(() => useAuthenticate({}, claims).authenticate("token")).toThrow(withCode("invalid_token"));
    }
  });

  it("of a disabled account says that it is disabled, though disabling has ended the token", () => {
    const { authenticate } = useAuthenticate({ is_active: false, token_version: 9 });
    expect(() => authenticate("token")).toThrow(
      withCode("account_disabled", { extras: { details: { reason: "disabled" } } }),
    );
  });

  it("works from active_from until just before expires_at, and again from banned_until on", () => {
    const soon = new Date(now + 1000);
    const expired = useAuthenticate({ expires_at: soon });
    expired.authenticate("token");
    expired.clock.advance(1000);
    expect(() => expired.authenticate("token")).toThrow(withCode("account_disabled"));
    for (const fields of [{ active_from: soon }, { banned_until: soon, ban_reason: "spam" }]) {
      const waiting = useAuthenticate(fields);
      expect(() => waiting.authenticate("token")).toThrow(withCode("account_disabled"));
      waiting.clock.advance(1000);
      expect(waiting.authenticate("token").account.username).toBe("bob");
    }
  });

  it("of a banned account tells until when and why", () => {
    const { authenticate } = useAuthenticate({ banned_until: new Date(now + 1000), ban_reason: "spam" });
    const details = { reason: "banned", at: "2026-11-22T12:00:01.000Z", ban_reason: "spam" };
    expect(() => authenticate("token")).toThrow(
      withCode("account_disabled", { extras: expect.objectContaining({ details }) }),
    );
  });
});

describe("an API key", () => {
  it("leads to its account", () => {
    const { authenticate, apiKey } = useAuthenticate();
    expect(authenticate(keyText)).toEqual({ account: bob, apiKey, sessionId: null });
  });

  it("stops with its account", () => {
    expect(() => useAuthenticate({ is_active: false }).authenticate(keyText)).toThrow(withCode("account_disabled"));
    expect(() => useAuthenticate({ expires_at: new Date(now) }).authenticate(keyText)).toThrow(
      withCode("account_disabled"),
    );
  });

  it("of somebody who had the user's name before is refused", () => {
    expect(() => useAuthenticate({ created_at: new Date(now + 1) }).authenticate(keyText)).toThrow(
      withCode("invalid_api_key"),
    );
    expect(useAuthenticate({ created_at: new Date(now) }).authenticate(keyText).account.username).toBe("bob");
  });

  it("works from its addresses only", () => {
    const { authenticate } = useAuthenticate({}, {}, { addresses: ["192.0.2.0/24", "2001:db8::/32"] });
    for (const ip of ["192.0.2.9", "::ffff:192.0.2.9", "2001:db8::1"])
      expect(authenticate(keyText, ip).apiKey?.id).toBe("k");
    for (const ip of ["192.0.3.1", "::1", ""]) {
      expect(() => authenticate(keyText, ip)).toThrow(withCode("address_not_allowed"));
    }
  });
});
