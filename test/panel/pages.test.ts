import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasBrowser, openPanel, startBrowser } from "../support/browser.ts";
import { axeFindings, cutTexts, panelPages, startFilledProxy } from "../support/panel-looks.ts";
import type { RunningProxy } from "../support/start-proxy.ts";

describe.skipIf(!hasBrowser)("the panel's pages", () => {
  let browser: Browser;
  let proxy: RunningProxy;

  beforeAll(async () => {
    proxy = await startFilledProxy();
    browser = await startBrowser();
  });
  afterAll(async () => {
    await browser.close();
    await proxy.dispose();
  });

  test.each([
    { locale: "en-GB", size: "desktop", dark: false },
    { locale: "zh-CN", size: "phone", dark: true },
    { locale: "en-GB", size: "phone", dark: false },
    { locale: "zh-CN", size: "desktop", dark: true },
  ] as const)(
    "all of them are sound in $locale at $size size",
    async (options) => {
      const tab = await openPanel(browser, proxy, { user: "boss", ...options });
      const { page } = tab;
      // Each look is examined once in each language.
      const examines = (options.locale === "en-GB") === (options.size === "desktop");
      const problems: string[] = [];
      for (const path of panelPages) {
        await tab.visit(`/${path}`);
        const width = await page.evaluate<number>("document.documentElement.scrollWidth - window.innerWidth");
        if (width > 0) problems.push(`${path}: ${width} px wider than the window`);
        if (options.size === "desktop") problems.push(...(await cutTexts(page)).map((text) => `${path}: ${text}`));
        const errors = await page.locator("main .error").allInnerTexts();
        problems.push(...errors.map((text) => `${path}: ${text}`));
        if (examines) problems.push(...(await axeFindings(page)).map((text) => `${path}: ${text}`));
        if (options.size === "phone") {
          const small = await page.evaluate<
            string[]
          >(`[...document.querySelectorAll("main button, main a.button, main select")]
            .filter((element) => element.getBoundingClientRect().height > 0)
            .filter((element) => element.getBoundingClientRect().height < 43.5)
            .map((element) => element.outerHTML.slice(0, 100))`);
          problems.push(...small.map((html) => `${path}: less than 44 px high: ${html}`));
        }
        if (options.locale === "zh-CN") {
          const title = await page.locator("main h1").innerText();
          if (!/[\u4e00-\u9fff]/.test(title) && !path.includes("/")) problems.push(`${path}: not Chinese: ${title}`);
        }
        if (path === "users?new=1") await page.keyboard.press("Escape");
      }
      expect(problems).toEqual([]);
      expect(tab.faults).toEqual([]);
      await tab.context.close();
    },
    90_000,
  );

  test("no filter and no address leads to an error", async () => {
    const tab = await openPanel(browser, proxy, { user: "boss" });
    const { page } = tab;
    const refused: string[] = [];
    page.on("response", (answer) => {
      if (answer.status() >= 400) refused.push(`${answer.status()} ${answer.url()}`);
    });
    for (const path of ["reports", "usage", "users", "limits", "users/alice?tab=spend"]) {
      await tab.visit(`/${path}`);
      for (const select of await page.locator("main .filters select").all()) {
        for (const option of await select.locator("option").all()) {
          await select.selectOption((await option.getAttribute("value")) ?? "");
          await tab.settled();
        }
      }
      for (const button of await page.locator("main .filters button").all()) {
        await button.click();
        await tab.settled();
      }
    }
    const days = ["from=2001-01-01", "from=2999-01-01", "to=0002-01-01", "from=x&to=2026-02-31"];
    for (const query of [...days, "by=hour", "by=user&user=alice"]) {
      for (const path of ["reports", "usage"]) await tab.visit(`/${path}?${query}`);
    }
    for (const path of ["reports", "requests", "limits", "audit"]) {
      await tab.visit(`/${path}`);
      await page.locator("main [name=user]").fill("No Such User");
      await page.locator("main [name=user]").press("Enter");
      await tab.settled();
    }
    expect(refused).toEqual([]);
    expect(await page.locator("main .error").count()).toBe(0);
    await tab.context.close();
  }, 60_000);

  test("a user sees no page of operators", async () => {
    const tab = await openPanel(browser, proxy, { user: "alice" });
    expect(await tab.page.locator("nav a").allInnerTexts()).not.toContain("Users");
    await tab.visit("/users");
    expect(await tab.page.locator("main").innerText()).toContain("There is no such page");
    await tab.context.close();
  });
});
