import { describe, expect, it } from "vitest";
import { parseConfig } from "../../src/config/load.ts";
import { groupsFrom, isMatched, rolesFrom, userNameFrom, valueAt } from "../../src/identity/oidc/claims.ts";

const config = (rules: string) => {
  const text = `[panel]\npublic_url = "https://llm.example"\n[[oidc]]\nname = "work"\nissuer = "https://id.example"\nclient_id = "c"\n${rules}`;
  const [issuer] = parseConfig(text, "test.toml").oidc;
  if (issuer === undefined) throw new Error("no issuer");
  return issuer;
};
const role = (claim: string, value: string, name: string) =>
  `[[oidc.roles]]\nclaim = "${claim}"\nvalue = ${value}\nrole = "${name}"\n`;
const claims = (idToken: Record<string, unknown>, userinfo: Record<string, unknown> = {}) => ({ idToken, userinfo });

describe("the claims of an identity provider", () => {
  it("are found by path, also under names with dots, and never in prototypes", () => {
    const token = { a: { b: { c: [1] } }, "https://x.example/roles": ["r"], list: [{ a: 1 }], none: null };
    expect(valueAt(token, "a.b.c")).toEqual([1]);
    expect(valueAt(token, "https://x.example/roles")).toEqual(["r"]);
    for (const path of ["a.c", "a.b.c.0", "list.a", "list.length", "none.a", "__proto__.toString", "constructor.name"])
      expect(valueAt(token, path), path).toBeUndefined();
  });

  it("give roles by rules: all that fit, user where none does, and nothing without rules", () => {
    const rules = config(role("realm_access.roles", '"boss"', "admin") + role("staff", "true", "auditor"));
    expect(rolesFrom(rules, claims({ realm_access: { roles: ["x", "boss"] }, staff: true }))).toEqual([
      "admin",
      "auditor",
    ]);
    for (const none of [
      {},
      { realm_access: { roles: "bos" } },
      { staff: "true" },
      { realm_access: ["boss"] },
      { staff: [1] },
    ])
      expect(rolesFrom(rules, claims(none))).toEqual(["user"]);
    expect(rolesFrom(config(""), claims({ role: "admin" }))).toBeUndefined();
    expect(isMatched(config(""), claims({}))).toBe(false);
  });

  it("come from userinfo only where the ID token lacks them", () => {
    const rules = config(role("role", '"boss"', "admin"));
    expect(rolesFrom(rules, claims({}, { role: ["boss"] }))).toEqual(["admin"]);
    expect(rolesFrom(rules, claims({ role: [] }, { role: ["boss"] }))).toEqual(["user"]);
  });

  it("say for each group of the rules whether somebody is in it", () => {
    const group = (value: string, name: string) =>
      `[[oidc.groups]]\nclaim = "groups"\nvalue = "${value}"\ngroup = "${name}"\n`;
    const rules = config(group("/a", "one") + group("/b", "one") + group("/c", "two"));
    expect([...groupsFrom(rules, claims({ groups: ["/b"] }))]).toEqual([
      ["one", true],
      ["two", false],
    ]);
    expect(isMatched(rules, claims({ groups: ["/c"] }))).toBe(true);
  });

  it.each([
    ["zoe", "zoe"],
    ["Zoe.Miller@Example.com", "zoe-miller"],
    ["a b", "a-b"],
    ["", undefined],
    ["@x", undefined],
    ["../root", undefined],
    ["z".repeat(33), undefined],
    ["con", undefined],
    [7, undefined],
    [["zoe"], undefined],
  ])("make the user name of %j %j", (claim, name) => {
    expect(userNameFrom(config(""), claims({ preferred_username: claim }))).toBe(name);
  });
});
