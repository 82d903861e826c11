import { describe, expect, it } from "vitest";
import { createAccess } from "../../src/accounts/access.ts";
import type { Account } from "../../src/accounts/account-schema.ts";
import { checkClaims, newClaims } from "../../src/accounts/claims.ts";

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
const good = newClaims(bob, { issuer: "proxy", audience: "clients", now, lifeSeconds: 900, id: "one" });
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
    });
    expect(check(good, now + 899_999)).toEqual(good);
    expect(() => check(good, now + 900_000)).toThrow(expect.objectContaining({ code: "token_expired", status: 401 }));
  });

  it("accepts a token from before the clock stepped back, and one whose nbf has passed", () => {
    expect(check(good, now - 3_600_000)).toEqual(good);
    expect(check({ ...good, nbf: seconds })).toMatchObject({ sub: "bob" });
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
    ["a claim of somebody else's", { ...good, admin: true }],
  ])("refuses %s as invalid_token", (_what, claims) => {
    expect(() => check(claims)).toThrow(expect.objectContaining({ code: "invalid_token", status: 401 }));
  });
});

describe("createAccess", () => {
  const accounts = new Map([["bob", bob]]);
  const access = createAccess((name) => accounts.get(name));

  it("finds the account of good claims", () => {
    expect(access(good)).toBe(bob);
  });

  it("refuses a removed account, an older version and a newer one", () => {
    expect(() => access({ ...good, sub: "eve" })).toThrow(expect.objectContaining({ code: "invalid_token" }));
    expect(() => access({ ...good, ver: 2 })).toThrow(expect.objectContaining({ code: "invalid_token" }));
    expect(() => access({ ...good, ver: 4 })).toThrow(expect.objectContaining({ code: "invalid_token" }));
  });

  it("says of a disabled account that it is disabled", () => {
    const disabled = createAccess(() => ({ ...bob, is_active: false, token_version: 9 }));
    expect(() => disabled(good)).toThrow(expect.objectContaining({ code: "account_disabled", status: 403 }));
  });
});
