import { describe, expect, it } from "vitest";
import { createTestBrowser } from "../support/oidc-issuer.ts";
import { always, meOf, setUpOidc, start } from "../support/oidc-proxy.ts";

describe("logins through an identity provider in several tabs of one browser", () => {
  it.each(["first begun", "last begun"] as const)("all succeed, the %s first", async (order) => {
    const { issuer, proxy } = await setUpOidc({ rules: always });
    issuer.claims.set("u-1", { preferred_username: "zoe" });
    const browser = createTestBrowser();
    const begin = (page: string) => browser.go(start(proxy, page), { login: "u-1", stopAt: "/callback" });
    const tabs = [await begin("/panel/usage"), await begin("/panel/keys")];
    const pages = ["/panel/usage", "/panel/keys"];
    if (order === "last begun") for (const list of [tabs, pages]) list.reverse();
    for (const [at, { url }] of tabs.entries()) {
      // Another page of the web leads the browser here between the two.
      expect((await browser.go(`${proxy.url}/panel/api/oidc/work/callback?code=x&state=made-up`)).url).toContain(
        "oidc_failed",
      );
      expect((await browser.go(url)).url).toBe(`${proxy.url}${pages[at]}`);
    }
    expect((await meOf(proxy, browser)).user).toBe("zoe");
    expect([...browser.cookies(proxy.url).keys()]).toEqual(["__Host-panel"]);
  });

  it("keeps the last four logins that a browser has begun, in a cookie that fits into a header", async () => {
    const { issuer, proxy } = await setUpOidc({ rules: always });
    issuer.claims.set("u-1", { preferred_username: "zoe" });
    const browser = createTestBrowser();
    const longest = `/panel/${"x".repeat(990)}`;
    const pages = ["/panel/1", "/panel/2", "/panel/3", "/panel/4", "/panel/5", longest, longest];
    const tabs: string[] = [];
    for (const page of pages) {
      tabs.push((await browser.go(start(proxy, page), { login: "u-1", stopAt: "/callback" })).url);
      expect(browser.header(proxy.url).length).toBeLessThan(3200);
      if (tabs.length !== 5) continue;
      expect((await browser.go(tabs[0] ?? "")).url).toContain("oidc_failed");
      expect((await browser.go(tabs[1] ?? "")).url).toBe(`${proxy.url}/panel/2`);
    }
    expect((await browser.go(tabs.at(-1) ?? "")).url).toBe(`${proxy.url}${longest}`);
  });
});
