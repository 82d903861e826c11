import { describe, expect, it } from "vitest";
import { pageAfterLogin } from "../../../src/http/panel/oidc-transaction.ts";

describe("the page after a login", () => {
  it.each([
    "/panel/",
    "/panel/usage?by=day&model=a%20b",
    "/panel/users/alice",
    "/panel/api-notes",
    "/panel/events?q=%E4%B8%AD",
  ])("is %s", (page) => {
    expect(pageAfterLogin(page)).toBe(page);
  });

  it.each([
    undefined,
    "",
    "/",
    "/panel",
    "panel/",
    "/admin",
    "https://evil.example/panel/",
    "//evil.example/panel/",
    "/\\evil.example",
    "\\\\evil.example",
    "/panel/\\evil.example",
    "/panel//evil.example",
    "/panel/../admin",
    "/panel/%2e%2e/admin",
    "/panel/%2Fevil.example",
    "/panel/%5cevil",
    "/panel/\nset-cookie: a=b",
    "/panel/%0d%0ax",
    "/panel/%",
    "/panel/%zz",
    "javascript:alert(1)",
    "/panel/<b>",
    "/panel/api/logout",
    "/panel/api",
    "\t/panel/",
    "/panel/ap%69/me",
    "/panel/API/me",
    "/panel/api?x",
    "/panel/%61pi/oidc/work/start",
    `/panel/${"a".repeat(1000)}`,
  ])("is never %j", (page) => {
    expect(pageAfterLogin(page)).toBe("/panel/");
  });
});
