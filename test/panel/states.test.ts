import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { totpCode } from "../../src/identity/login/second-factor.ts";
import { hasBrowser, openPanel, type PanelTab, startBrowser } from "../support/browser.ts";
import { faultsInBothLanguages } from "../support/panel-looks.ts";
import { alicePassword, bearer, post, type RunningProxy, startProxy, userFile } from "../support/start-proxy.ts";

const config = `
[security]
registration = "invitation"
[risk]
enabled = true
[panel]
title = "Our models"
[quota.tiers]
basic = { limits = [{ metric = "requests", per = "month", max = 500 }, { metric = "cost", per = "day", max = 5 }] }
[[models.prices]]
models = ["sim-*", "deepseek-*"]
currency = "CNY"
cache_hit = 0.1
cache_miss = 1
output = 4
`;
const dialog = "dialog[open]";
const longModels = Array.from({ length: 12 }, (_, index) => `a-model-with-a-long-name-${index}`);

/** What a page shows only after somebody has done something, or while something is wrong. */
describe.skipIf(!hasBrowser)("the panel's states are sound in both languages and themes, at both sizes", () => {
  let browser: Browser;
  let proxy: RunningProxy;
  let operator: Readonly<Record<string, string>>;

  beforeAll(async () => {
    proxy = await startProxy({
      config,
      configFile: true,
      users: {
        boss: userFile("boss", alicePassword, 'roles = ["admin"]\n'),
        alice: userFile("alice", alicePassword),
        bob: userFile("bob", alicePassword),
        carol: userFile("carol", alicePassword),
        newcomer: userFile("newcomer", alicePassword, "must_change_password = true\n"),
      },
    });
    browser = await startBrowser();
    operator = { ...bearer(await proxy.login("boss")), "content-type": "application/json" };
  });
  afterAll(async () => {
    await browser.close();
    await proxy.dispose();
  });

  const patch = (path: string, fields: object): Promise<Response> =>
    fetch(`${proxy.url}${path}`, { method: "PATCH", headers: operator, body: JSON.stringify(fields) });

  /** Sets up a second factor as its page does; returns the code of so many half minutes from now. */
  async function setUpFactor(url: string, { context }: PanelTab): Promise<(steps: number) => string> {
    const ask = async (path: string, data: object): Promise<unknown> => {
      const headers = { origin: url, "content-type": "application/json" };
      const answer = await context.request.post(`${url}/panel/api/second-factor${path}`, { data, headers });
      if (!answer.ok()) throw new Error(await answer.text());
      return answer.json();
    };
    const { secret } = (await ask("/secret", {})) as { secret: string };
    const codeAt = (steps: number): string => totpCode(secret, Math.floor(Date.now() / 30_000) + steps);
    await ask("", { secret, otp: codeAt(0) });
    return codeAt;
  }

  test("the login: a wrong password, a second factor, a registration, and on top of a page", async () => {
    const owner = await openPanel(browser, proxy, { user: "alice" });
    const codeAt = await setUpFactor(proxy.url, owner);
    const { page, context, faults } = await openPanel(browser, proxy);
    const found: string[] = [];
    const look = async (what: string, within?: string): Promise<void> => {
      found.push(...(await faultsInBothLanguages(page, within)).map((text) => `${what}: ${text}`));
    };
    const submit = page.locator("button[type=submit]").last();
    await page.getByRole("button", { name: "Register with an invitation" }).waitFor();
    await look("fresh");
    await page.fill("[name=username]", "alice");
    await page.fill("[name=password]", "wrong wrong wrong");
    await submit.click();
    await page.locator(".error").waitFor();
    await look("wrong password");
    await page.fill("[name=password]", alicePassword);
    await submit.click();
    await page.locator("[name=otp]").waitFor();
    await look("second factor");
    await page.fill("[name=otp]", "000000");
    await submit.click();
    await page.locator(".error").waitFor();
    await look("wrong code");

    await page.getByRole("button", { name: "Register with an invitation" }).click();
    await look("registration");
    await page.fill("[name=code]", "00000000-00000-00000-00000-00000");
    await page.fill("[name=username]", "stranger");
    await page.fill("[name=password]", "a long password");
    await page.fill("[name=again]", "a long password");
    await submit.click();
    await page.locator(".error").waitFor();
    await look("refused invitation");
    await page.goto(`${proxy.url}/panel/?login_error=oidc_failed`);
    await page.locator(".error").waitFor();
    await look("back from an identity provider");

    await page.fill("[name=username]", "alice");
    await page.fill("[name=password]", alicePassword);
    await submit.click();
    await page.fill("[name=otp]", codeAt(1));
    await submit.click();
    await page.locator("nav").waitFor();
    await context.clearCookies();
    // What the page asks for by itself may have opened the dialog already.
    await page.evaluate("document.querySelector('nav a[href$=\"/keys\"]').click()");
    await page.locator(dialog).waitFor();
    await look("the session has ended", dialog);
    await page.locator(`${dialog} [name=password]`).fill(alicePassword);
    await submit.click();
    await page.locator(`${dialog} [name=otp]`).waitFor();
    await look("second factor on top of a page", dialog);
    expect(found).toEqual([]);
    expect(faults).toEqual([]);
    await context.close();
    await owner.context.close();
  }, 120_000);

  test("what must be done first: a password of one's own, a second factor with its recovery codes", async () => {
    const strict = await startProxy({
      config: '[security]\nrequire_second_factor = "admins"\n',
      users: { boss: userFile("boss", alicePassword, 'roles = ["admin"]\n') },
    });
    try {
      const logIn = async (url: string, user: string): Promise<PanelTab> => {
        const tab = await openPanel(browser, { url });
        await tab.page.fill("[name=username]", user);
        await tab.page.fill("[name=password]", alicePassword);
        await tab.page.click("button[type=submit]");
        await tab.page.locator(dialog).waitFor();
        return tab;
      };
      const first = await logIn(proxy.url, "newcomer");
      const found = (await faultsInBothLanguages(first.page, dialog)).map((text) => `password: ${text}`);
      await first.page.fill("[name=current]", alicePassword);
      await first.page.fill("[name=new]", "another horse battery");
      await first.page.fill("[name=again]", "and another");
      await first.page.click(`${dialog} button[type=submit]`);
      await first.page.locator(`${dialog} .error`).waitFor();
      found.push(...(await faultsInBothLanguages(first.page, dialog)).map((text) => `they differ: ${text}`));

      const second = await logIn(strict.url, "boss");
      await second.page.locator("svg.qr path").waitFor();
      found.push(...(await faultsInBothLanguages(second.page, dialog)).map((text) => `factor: ${text}`));
      const secret = /[A-Z2-7]{32}/.exec(await second.page.locator(dialog).innerText())?.[0] ?? "";
      await second.page.fill("[name=otp]", totpCode(secret, Math.floor(Date.now() / 30_000)));
      await second.page.click(`${dialog} button[type=submit]`);
      await second.page.locator(`${dialog} li`).nth(9).waitFor();
      found.push(...(await faultsInBothLanguages(second.page, dialog)).map((text) => `recovery codes: ${text}`));
      expect(found).toEqual([]);
      expect([...first.faults, ...second.faults]).toEqual([]);
      await first.context.close();
      await second.context.close();
    } finally {
      await strict.dispose();
    }
  }, 120_000);

  test.each([
    ["user", "/users/carol?tab=settings", "/admin/users/carol"],
    ["group", "/groups/raced", "/admin/groups/raced"],
  ])(
    "the choice where somebody else has changed a %s first",
    async (_what, path, api) => {
      if (api.includes("groups")) await post(`${proxy.url}/admin/groups`, { name: "raced" }, operator);
      const tab = await openPanel(browser, proxy, { user: "boss" });
      const { page } = tab;
      await tab.visit(path);
      await page.locator("[name=parallel]").fill("3");
      await page.locator("[name=models]").fill("one-model, another-*");
      await patch(api, { max_parallel: 7, models: longModels });
      await page.getByRole("button", { name: "Save", exact: true }).click();
      await page.locator(`${dialog} .changed`).nth(1).waitFor();
      expect(await faultsInBothLanguages(page, dialog)).toEqual([]);
      expect(tab.faults).toEqual([]);
      await tab.context.close();
    },
    60_000,
  );

  test("the dialogs of an operator that show what has been made, what came, and what can't be undone", async () => {
    const owner = await openPanel(browser, proxy, { user: "bob" });
    await setUpFactor(proxy.url, owner);
    await owner.context.close();
    const chat = { model: "sim-fast", messages: [{ role: "user", content: "Hello" }] };
    await (await post(`${proxy.url}/v1/chat/completions`, chat, bearer(await proxy.login("carol")))).text();
    await post(`${proxy.url}/admin/groups`, { name: "passing", members: ["carol"] }, operator);
    const tab = await openPanel(browser, proxy, { user: "boss" });
    const { page } = tab;
    const found: string[] = [];
    const look = async (what: string): Promise<void> => {
      await page.locator(dialog).waitFor();
      found.push(...(await faultsInBothLanguages(page, dialog)).map((text) => `${what}: ${text}`));
    };
    const press = (name: string) => page.locator("main").getByRole("button", { name, exact: true }).first().click();
    const send = () => page.locator(`${dialog} button[type=submit]`).click();

    await tab.visit("/codes");
    await press("Make codes");
    await page.fill(`${dialog} [name=name]`, "Workshop");
    await page.fill(`${dialog} [name=count]`, "5");
    await page.fill(`${dialog} [name=amount]`, "many");
    await send();
    await look("codes that are refused");
    await page.fill(`${dialog} [name=amount]`, "5");
    await send();
    await page.getByText("This is the only time that they are shown.").waitFor();
    await look("codes");
    await tab.visit("/keys");
    await page.goto(`${proxy.url}/panel/keys`);
    await page.locator("main h1").waitFor();
    await press("Make a key");
    await page.fill(`${dialog} [name=name]`, "laptop");
    await send();
    await page.locator("[data-secret]").waitFor();
    await look("a key");
    await page.goto(`${proxy.url}/panel/users?new=1`);
    await page.fill(`${dialog} [name=username]`, "dave");
    await send();
    await page.locator("[data-secret]").waitFor();
    await look("a one-time password");

    await page.goto(`${proxy.url}/panel/requests`);
    await page.locator("tbody button").first().click();
    await look("a request");
    await page.goto(`${proxy.url}/panel/users/carol?tab=behaviour`);
    await page.locator("tbody button").first().click();
    await look("what a user did");
    await page.goto(`${proxy.url}/panel/events`);
    await page.getByText("live", { exact: true }).waitFor();
    await (await post(`${proxy.url}/v1/chat/completions`, chat, bearer(await proxy.login("carol")))).text();
    await page.locator("tbody button").first().click();
    await look("an event");

    await page.goto(`${proxy.url}/panel/providers`);
    await page.locator("main h1").waitFor();
    await press("Test");
    for (const model of ["sim-fast", "sim-500"]) {
      await page.fill(`${dialog} [name=model]`, model);
      await send();
      await page.locator(`${dialog} [role=status]`, { hasText: model }).waitFor();
      await look(`a test of ${model}`);
    }
    await page.goto(`${proxy.url}/panel/limits`);
    await page.locator("main h1").waitFor();
    await press("Pin");
    await look("a pin");
    await page.goto(`${proxy.url}/panel/users/bob`);
    await page.locator("main h1").waitFor();
    await press("Remove the second factor");
    await look("removal of a second factor");
    await page.goto(`${proxy.url}/panel/groups/passing`);
    await page.locator("main h1").waitFor();
    await press("Remove group");
    await page.fill(`${dialog} [name=confirm]`, "another");
    await send();
    await page.locator(`${dialog} .error`).waitFor();
    await look("a group's name that was mistyped");
    expect(found).toEqual([]);
    expect(tab.faults).toEqual([]);
    await tab.context.close();
  }, 180_000);

  test("pages with a banner, an error, an answer or a toast", async () => {
    const hours = new Date(Date.now() + 3 * 3_600_000).toISOString();
    await patch("/admin/users/carol", {
      banned_until: hours,
      ban_reason: "shares the key with strangers, again and again",
    });
    const tab = await openPanel(browser, proxy, { user: "boss" });
    const { page } = tab;
    const found: string[] = [];
    const look = async (what: string): Promise<void> => {
      found.push(...(await faultsInBothLanguages(page, ":is(main, .toasts)")).map((text) => `${what}: ${text}`));
    };
    await tab.visit("/users/carol");
    await page.locator("main p.banner").waitFor();
    await look("banned");
    await page.getByRole("button", { name: "Lift the ban" }).click();
    await page.locator(".toast").waitFor();
    await look("toast");
    await tab.visit("/users/nobody-of-that-name");
    await page.locator("main .error").waitFor();
    await look("no such user");
    await tab.visit("/no-such-page");
    await look("no such page");
    await tab.visit("/limits?user=carol");
    await look("what is left for a user");
    await tab.visit("/requests?from=2026-01-01T00:00:00Z&to=2026-01-01T00:01:00Z&user=carol");
    await look("a filter that nothing fits");

    await tab.visit("/chat?model=deepseek-v4-pro");
    await page.fill("textarea", "Hello, and why?");
    await page.keyboard.press("Enter");
    await page.locator(".turn.assistant .note").last().waitFor();
    await page.locator(".turn.assistant summary").click();
    await page.locator(".turn.assistant .costs").waitFor();
    await look("an answer with its reasoning");
    await tab.visit("/chat?model=sim-error-event:3");
    await page.fill("textarea", "Hello?");
    await page.keyboard.press("Enter");
    await page.locator("main .error").waitFor();
    await look("an answer that broke off");

    const codes = { name: "Workshop", count: 1, uses: 1, amount: "5", metric: "cost", per: "day" };
    const made = (await (await post(`${proxy.url}/admin/codes`, codes, operator)).json()) as { codes: string[] };
    await tab.visit("/redeem");
    await page.fill("[name=code]", made.codes[0] ?? "");
    await page.locator("main button[type=submit]").click();
    await page.locator("main [role=status]").waitFor();
    await look("a redeemed code");
    await tab.visit("/codes");
    await look("a code that is used up");

    const file = join(proxy.folder, "config.toml");
    await writeFile(file, proxy.configText(`${config}[server.tls]\n`));
    await tab.visit("/config");
    await page.locator("main button.primary").click();
    await page.locator("main .error").waitFor();
    await look("a config that is invalid");
    await writeFile(file, proxy.configText(config.replace("Our models", "Our newer models").replace("500", "600")));
    await page.locator("main button.primary").click();
    await page.locator("main h2", { hasText: "What changed" }).waitFor();
    await look("a config with changes");
    expect(found).toEqual([]);
    expect(tab.faults).toEqual([]);
    await tab.context.close();
  }, 180_000);
});
