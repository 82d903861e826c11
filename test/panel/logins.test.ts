import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { totpCode } from "../../src/identity/login/second-factor.ts";
import { hasBrowser, openPanel, startBrowser } from "../support/browser.ts";
import { clientSecret, startIssuer } from "../support/oidc-issuer.ts";
import { faultsOfLook } from "../support/panel-looks.ts";
import { alicePassword, startProxy, userFile } from "../support/start-proxy.ts";

describe.skipIf(!hasBrowser)("logins in a browser", () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await startBrowser();
  });
  afterAll(() => browser.close());

  test("through an identity provider are linked on the Account page, and log in by a button", async () => {
    const issuer = await startIssuer();
    const configOf = (publicUrl: string): string =>
      `[panel]\npublic_url = "${publicUrl}"\n[[oidc]]\nname = "work"\ntitle = "Our company"\nissuer = "${issuer.url}"\nclient_id = "proxy"\nclient_secret_env = "WORK_SECRET"\n`;
    const proxy = await startProxy({
      config: configOf("http://127.0.0.1:1"),
      configFile: true,
      env: { WORK_SECRET: clientSecret },
      users: { alice: userFile("alice", alicePassword) },
    });
    try {
      await writeFile(join(proxy.folder, "config.toml"), proxy.configText(configOf(proxy.url)));
      await proxy.services.reload("test");
      issuer.open(`${proxy.url}/panel/api/oidc/work/callback`);

      const { page, context, visit, faults } = await openPanel(browser, proxy, { user: "alice" });
      await visit("/account");
      await page.getByRole("button", { name: "Link Our company" }).click();
      await page.fill("input[name=login]", "u-1");
      await page.fill("input[name=password]", "any");
      await page.click("button[type=submit]");
      await page.click("button[type=submit]");
      await page.waitForURL(`${proxy.url}/panel/account`);
      await page.getByRole("button", { name: "Unlink" }).waitFor();
      await context.clearCookies({ name: "__Host-panel" });

      await page.goto(`${proxy.url}/panel/usage`);
      await page.getByRole("link", { name: "Log in with Our company" }).click();
      await page.waitForURL(`${proxy.url}/panel/usage`);
      await page.getByRole("heading", { name: "Usage" }).first().waitFor();

      await page.goto(`${proxy.url}/panel/account`);
      await page.getByRole("button", { name: "Unlink" }).click();
      // The last one is not taken away by a single click.
      const dialog = page.getByRole("dialog");
      await dialog.getByText("nobody knows its password").waitFor();
      await dialog.locator("input[name=confirm]").fill("alice");
      await dialog.getByRole("button", { name: "Unlink" }).click();
      await page.getByText("None yet.").waitFor();
      await context.clearCookies({ name: "__Host-panel" });
      await page.goto(`${proxy.url}/panel/`);
      await page.getByRole("link", { name: "Log in with Our company" }).click();
      await page.getByText("This login has no account here.").waitFor();
      await page.waitForURL(`${proxy.url}/panel/`);
      // The issuer's own pages, and a font that they ask for, are the only others.
      const others = new RegExp(`^request: (${issuer.url}|https://fonts\\.googleapis\\.com)/`);
      expect(faults.filter((fault) => !others.test(fault))).toEqual([]);
    } finally {
      await proxy.dispose();
    }
  });

  test("ask for the code of a second factor, which is set up on the Account page", async () => {
    const proxy = await startProxy({ users: { alice: userFile("alice", alicePassword) } });
    try {
      const { page, context, visit, faults } = await openPanel(browser, proxy, { user: "alice", size: "phone" });
      await visit("/account");
      await page.getByRole("button", { name: "Set up a second factor" }).click();
      await page.locator("svg.qr path").waitFor();
      const secret = /[A-Z2-7]{32}/.exec(await page.locator("dialog").innerText())?.[0] ?? "";
      const codeAt = (steps: number): string => totpCode(secret, Math.floor(Date.now() / 30_000) + steps);
      expect(await faultsOfLook(page, "dialog[open]")).toEqual([]);
      await page.fill("dialog input[name=otp]", codeAt(0));
      await page.getByRole("button", { name: "Turn it on" }).click();
      await page.getByText("Keep these recovery codes").waitFor();
      expect(await faultsOfLook(page, "dialog[open]")).toEqual([]);
      const [recovery = ""] = /[a-z2-7]{4}(-[a-z2-7]{4}){3}/.exec(await page.locator("dialog").innerText()) ?? [];
      await page.getByRole("button", { name: "I have kept them" }).click();
      await page.getByText("10 recovery codes left").waitFor();
      await context.clearCookies();

      await page.goto(`${proxy.url}/panel/account`);
      await page.fill("input[name=username]", "alice");
      await page.fill("input[name=password]", alicePassword);
      await page.getByRole("button", { name: "Log in" }).click();
      await page.getByText("Enter the code of your authenticator app").waitFor();
      await page.fill("input[name=otp]", codeAt(1));
      await page.getByRole("button", { name: "Log in" }).click();
      await page.getByText("10 recovery codes left").waitFor();

      const card = page.locator("section").filter({ hasText: "recovery codes left" });
      await card.locator("input[name=password]").fill(alicePassword);
      await card.locator("input[name=otp]").fill(recovery);
      await card.getByRole("button").click();
      await page.getByRole("button", { name: "Set up a second factor" }).waitFor();
      expect(faults).toEqual([]);
    } finally {
      await proxy.dispose();
    }
  });

  test("are opened by an invitation, where the config lets strangers register", async () => {
    const root = userFile("root", alicePassword, 'roles = ["admin"]\n');
    const proxy = await startProxy({ config: '[security]\nregistration = "invitation"\n', users: { root } });
    try {
      const operator = await openPanel(browser, proxy, { user: "root" });
      await operator.visit("/codes");
      await operator.page.getByRole("button", { name: "Make codes" }).click();
      const dialog = operator.page.getByRole("dialog");
      await dialog.locator("select[name=kind]").selectOption("invitation");
      await dialog.locator("input[name=name]").fill("guests");
      await dialog.locator("input[name=note]").fill("for the course");
      await dialog.getByRole("button", { name: "Make codes" }).click();
      await operator.page.getByText("This is the only time that they are shown.").waitFor();
      const [code = ""] = /[0-9A-Z]{8}(-[0-9A-Z]{5}){4}/.exec(await operator.page.locator("dialog").innerText()) ?? [];
      expect(operator.faults).toEqual([]);

      const context = await browser.newContext({ locale: "en-US" });
      const page = await context.newPage();
      await page.goto(`${proxy.url}/panel/`);
      await page.getByRole("button", { name: "Register with an invitation" }).click();
      await page.fill("input[name=code]", code);
      await page.fill("input[name=username]", "newcomer");
      await page.fill("input[name=password]", "a long password");
      await page.fill("input[name=again]", "a long password");
      await page.getByRole("button", { name: "Register" }).click();
      await page.waitForURL(`${proxy.url}/panel/home`);
      expect((await proxy.services.users.get("newcomer"))?.roles).toEqual(["user"]);
      await context.close();
    } finally {
      await proxy.dispose();
    }
  });
});
