import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasBrowser, openPanel, startBrowser } from "../support/browser.ts";
import { cutTexts, faultsInBothLanguages, faultsOfLook, panelPages, startFilledProxy } from "../support/panel-looks.ts";
import { type RunningProxy, startProxy } from "../support/start-proxy.ts";

describe.skipIf(!hasBrowser)("the panel's looks", () => {
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

  test.each(["en-GB", "zh-CN"] as const)("no text is cut on a small phone in %s", async (locale) => {
    const tab = await openPanel(browser, proxy, { user: "boss", locale, size: "smallPhone" });
    const problems: string[] = [];
    for (const path of panelPages) {
      await tab.visit(`/${path}`);
      problems.push(...(await cutTexts(tab.page)).map((text) => `${path}: ${text}`));
      if (path === "users?new=1") await tab.page.keyboard.press("Escape");
    }
    await tab.page.locator(".menu-button").click();
    problems.push(...(await cutTexts(tab.page)).map((text) => `menu: ${text}`));
    expect(problems).toEqual([]);
    await tab.context.close();
  });

  test("the dialogs that buttons open are sound in both languages and themes, and on a small phone", async () => {
    const tab = await openPanel(browser, proxy, { user: "boss" });
    const { page } = tab;
    const buttons = "main button:not(.filters button):not(.tabs button):not([disabled])";
    // A time changes while one waits for it.
    const names = async (): Promise<readonly string[]> => {
      const texts = await page.locator(buttons).allInnerTexts();
      return texts.map((text) => text.replace(/^\d+ (seconds?|minutes?) ago$|^just now$/, "a time"));
    };
    const dialog = page.locator("dialog[open]");
    const problems: string[] = [];
    const seen = new Set<string>();
    // It would end the session of this test.
    const pressed = new Set(["account: End"]);
    for (const path of panelPages.filter((one) => one !== "users?new=1")) {
      await tab.visit(`/${path}`);
      for (const name of await names()) {
        // All tabs of a user have the same ones above them.
        const button = `${path.replace(/\?.*/, "")}: ${name}`;
        if (pressed.has(button)) continue;
        pressed.add(button);
        await page.goto(`${proxy.url}/panel/${path}`);
        await page.locator("main h1").waitFor();
        await tab.settled();
        await expect.poll(names, { timeout: 60_000 }).toContain(name);
        await page
          .locator(buttons)
          .nth((await names()).indexOf(name))
          .click();
        await page.evaluate("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))");
        await page.locator("main button[aria-busy='true']").first().waitFor({ state: "detached" });
        if ((await dialog.count()) === 0) continue;
        seen.add((await dialog.getAttribute("aria-label")) ?? "");
        problems.push(...(await faultsInBothLanguages(page, "dialog[open]")).map((text) => `${button}: ${text}`));
      }
    }
    await page.goto(`${proxy.url}/panel/nodes`);
    await page.locator("main h1").waitFor();
    await page.keyboard.press("?");
    await dialog.waitFor();
    problems.push(...(await faultsInBothLanguages(page, "dialog[open]")).map((text) => `keyboard: ${text}`));
    expect(problems).toEqual([]);
    const always = ["Make a key", "New user", "New group", "Make codes", "Ban", "Archive", "Adjust", "Reset a period"];
    expect([...seen]).toEqual(expect.arrayContaining(always));
    expect(tab.faults).toEqual([]);
    await tab.context.close();
  }, 180_000);

  test("the login page with identity providers is sound in both themes and languages", async () => {
    const issuer = `[[oidc]]\nname = "work"\ntitle = "Our company's directory"\nissuer = "http://127.0.0.1:1"\nclient_id = "proxy"\nclient_secret_env = "WORK_SECRET"\n`;
    const other = await startProxy({
      config: `[panel]\npublic_url = "http://127.0.0.1:1"\n${issuer}`,
      env: { WORK_SECRET: "a secret of the provider" },
    });
    try {
      for (const locale of ["en-GB", "zh-CN"] as const) {
        const { page, context } = await openPanel(browser, other, { locale });
        await page.locator("a.button.wide").waitFor();
        expect(await faultsOfLook(page)).toEqual([]);
        await context.close();
      }
    } finally {
      await other.dispose();
    }
  });
});
