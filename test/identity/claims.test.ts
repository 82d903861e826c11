import { describe, expect, it } from "vitest";
import type { Account } from "../../src/identity/account-schema.ts";
import { checkClaims, newClaims } from "../../src/identity/sessions/claims.ts";

const now = Date.UTC(2026, 10, 22, 12);
const seconds = now / 1000;
const bob: Account = {
  username: "bob",
  password_hash: "",
  quota_tier: "basic",
  roles: ["user"],
  is_active: true,
  token_version: 3,
  metadata: {},
};
const good = newClaims(bob, { issuer: "proxy", audience: "clients", now, lifeSeconds: 900, id: "one", sessionId: "s" });
const check = (claims: unknown, at = now) => checkClaims(claims, { issuer: "proxy", audience: "clients", now: at });

describe("checkClaims", () => {
  it("accepts what newClaims made, until it ends", () => {
    expect(check(good)).toEqual({
      sub: "bob",
      iss: "proxy",
      aud: "clients",
      iat: seconds,
      exp: seconds + 900,
      jti: "one",
      ver: 3,
      sid: "s",
    });
    expect(check(good, now + 899_999)).toEqual(good);
    expect(() => check(good, now + 900_000)).toThrow(expect.objectContaining({ code: "token_expired", status: 401 }));
  });

  it("accepts a token from before the clock stepped back, and one whose nbf has passed", () => {
    expect(check(good, now - 3_600_000)).toEqual(good);
    expect(check({ ...good, nbf: seconds })).toMatchObject({ sub: "bob" });
  });

  it("refuses a token of no session", () => {
    expect(() => check({ ...good, sid: undefined })).toThrow(expect.objectContaining({ code: "invalid_token" }));
  });

  it.each([
    ["not an object", "claims"],
    ["null", null],
    ["a list", [good]],
    ["no exp", { ...good, exp: undefined }],
    ["exp as text", { ...good, exp: String(good.exp) }],
    ["exp as a fraction", { ...good, exp: good.exp + 0.5 }],
    ["exp as infinity", { ...good, exp: Infinity }],
    ["no iat", { ...good, iat: undefined }],
    ["nbf in the future", { ...good, nbf: seconds + 1 }],
    ["nbf as text", { ...good, nbf: String(seconds) }],
    ["another issuer", { ...good, iss: "other" }],
    ["another audience", { ...good, aud: "other" }],
    ["a list of audiences", { ...good, aud: ["clients"] }],
    ["no sub", { ...good, sub: undefined }],
    ["a sub that is no user name", { ...good, sub: "../bob" }],
    ["sub __proto__", { ...good, sub: "__proto__" }],
    ["no jti", { ...good, jti: undefined }],
    ["no ver", { ...good, ver: undefined }],
    ["ver as text", { ...good, ver: "3" }],
    ["an empty sid", { ...good, sid: "" }],
    ["sid as a number", { ...good, sid: 1 }],
    ["a claim of somebody else's", { ...good, admin: true }],
  ])("refuses %s as invalid_token", (_what, claims) => {
    expect(() => check(claims)).toThrow(expect.objectContaining({ code: "invalid_token", status: 401 }));
  });
});
