import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasBrowser, openPanel, startBrowser } from "../support/browser.ts";
import { logIn } from "../support/accounts.ts";
import { alicePassword, bearer, post, type RunningProxy, startProxy, userFile } from "../support/start-proxy.ts";

const config = `
[quota.tiers]
basic = { limits = [{ metric = "requests", per = "month", max = 500 }] }
pro = { limits = [{ metric = "requests", per = "month", max = 900 }] }
`;

describe.skipIf(!hasBrowser)("what one does in the panel", () => {
  let browser: Browser;
  let proxy: RunningProxy;

  beforeAll(async () => {
    proxy = await startProxy({
      config,
      users: {
        boss: userFile("boss", alicePassword, 'roles = ["admin"]\n'),
        alice: userFile("alice", alicePassword),
        bob: userFile("bob", alicePassword),
        carol: userFile("carol", alicePassword),
        newcomer: userFile("newcomer", alicePassword, "must_change_password = true\n"),
      },
    });
    browser = await startBrowser();
  });
  afterAll(async () => {
    await browser.close();
    await proxy.dispose();
  });

  test("a first chat: a model that is no old name is suggested, and its small cost is shown with the currency", async () => {
    const prices = `[[models.prices]]\nmodels = ["deepseek-flash"]\ncurrency = "CNY"\ncache_hit = 0.02\ncache_miss = 1\noutput = 8\n`;
    const aliases = `[models.aliases]\ndeepseek-chat = "deepseek-flash"\n`;
    const boss = userFile("boss", alicePassword, 'roles = ["admin"]\n');
    const other = await startProxy({ config: `${prices}${aliases}`, users: { boss } });
    try {
      const { token } = await logIn(other, "boss", alicePassword);
      const messages = [{ role: "user", content: "Hello!" }];
      await post(`${other.url}/v1/chat/completions`, { model: "deepseek-flash", messages }, bearer(token));
      const tab = await openPanel(browser, other, { user: "boss" });
      await tab.visit("/setup");
      expect(await tab.page.locator("main select").first().inputValue()).toBe("deepseek-flash");
      await tab.visit("/overview");
      const cost = tab.page.locator(".tile .num");
      expect(await cost.innerText()).toMatch(/^0\.000\d{3}\s+CNY$/);
      const right = (selector: string) =>
        tab.page.evaluate<number>(`document.querySelector("${selector}").getBoundingClientRect().right`);
      expect(await right(".tile .num small")).toBeLessThan(await right(".tile:has(.num)"));
      await tab.context.close();
    } finally {
      await other.dispose();
    }
  });

  test("a login: a wrong password says so, with the request's id; a one-time password must be replaced", async () => {
    const { page, faults } = await openPanel(browser, proxy);
    await page.fill("[name=username]", "newcomer");
    await page.fill("[name=password]", "wrong wrong wrong");
    await page.click("button[type=submit]");
    await page.getByText("The user name or the password is wrong.").waitFor();
    expect(await page.locator(".error").innerText()).toMatch(/invalid_credentials · [0-9a-f-]{36}/);
    await page.fill("[name=password]", alicePassword);
    await page.click("button[type=submit]");
    await page.locator("[name=current]").waitFor();
    await page.waitForLoadState("networkidle");
    // The page below has asked for nothing that would be refused.
    expect(await page.locator(".error").count()).toBe(0);
    await page.fill("[name=current]", alicePassword);
    await page.fill("[name=new]", "another horse battery");
    await page.fill("[name=again]", "another horse battery");
    await page.click("dialog button[type=submit]");
    await page.getByText("Hello, newcomer").waitFor();
    await page.locator("dialog").waitFor({ state: "detached" });
    await page.getByText("Log out").click();
    await page.locator("[name=username]").waitFor();
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("a key is shown once, works, and is refused once it is revoked", async () => {
    const { page, visit, faults } = await openPanel(browser, proxy, { user: "alice" });
    await visit("/keys");
    await page.getByRole("button", { name: "Make a key" }).first().click();
    await page.fill("dialog [name=name]", "laptop");
    await page.click("dialog button[type=submit]");
    const key = await page.locator("[data-secret]").innerText();
    expect((await fetch(`${proxy.url}/auth/quota`, { headers: bearer(key) })).status).toBe(200);
    await page.getByRole("button", { name: "I have copied it" }).click();
    expect(await page.content()).not.toContain(key);
    await page.getByRole("button", { name: "Revoke laptop" }).click();
    await page.fill("dialog [name=confirm]", "laptop");
    await page.click("dialog button[type=submit]");
    await page.getByText("“laptop” is revoked.").waitFor();
    expect((await fetch(`${proxy.url}/auth/quota`, { headers: bearer(key) })).status).toBe(401);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("a chat streams, and says what the ledger has charged for it", async () => {
    const { page, visit, faults } = await openPanel(browser, proxy, { user: "alice" });
    await visit("/chat?model=sim-fast");
    await page.fill("textarea", "Hello there");
    const charged = page.waitForResponse(
      (response) => /\/auth\/usage\/requests\/[\w-]+$/.test(response.url()) && response.ok(),
    );
    await page.keyboard.press("Enter");
    const { input_tokens: input, output_tokens: output } = (await (await charged).json()) as Record<string, number>;
    await page.locator(".turn.assistant", { hasText: `${input} in, ${output} out` }).waitFor();
    expect(await page.locator(".turn.user").innerText()).toBe("Hello there");
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("a session that ends shows the login over the page, and nothing typed is lost", async () => {
    const { page, visit, faults } = await openPanel(browser, proxy, { user: "bob" });
    await visit("/keys");
    await page.getByRole("button", { name: "Make a key" }).first().click();
    await page.fill("dialog [name=name]", "typed before");
    await fetch(`${proxy.url}/auth/logout-all`, { method: "POST", headers: bearer(await proxy.login("bob")) });
    await page.click("dialog button[type=submit]");
    const again = page.getByRole("dialog", { name: "Your session has ended" });
    await again.locator("[name=password]").fill(alicePassword);
    await again.locator("button[type=submit]").click();
    await page.getByText("The key “typed before” is made").waitFor();
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("an operator makes a user, grants and adjusts with a reason, and undoes it", async () => {
    const { page, visit, faults } = await openPanel(browser, proxy, { user: "boss" });
    await visit("/users?new=1");
    await page.fill("dialog [name=username]", "dave");
    await page.click("dialog button[type=submit]");
    const password = await page.locator("[data-secret]").innerText();
    expect(await proxy.login("dave", password)).not.toBe("");
    await page.getByRole("dialog").getByRole("button", { name: "Close" }).last().click();
    await page.getByRole("button", { name: "Grant more" }).click();
    await page.fill("dialog [name=amount]", "100");
    await page.fill("dialog [name=reason]", "a workshop");
    await page.click("dialog button[type=submit]");
    await page.getByText("600 of 600 left").waitFor();
    await page.getByRole("button", { name: "Adjust" }).click();
    await page.fill("dialog [name=amount]", "50");
    await page.fill("dialog [name=reason]", "by phone");
    await page.click("dialog button[type=submit]");
    await page.getByText("550 of 600 left").waitFor();
    await page.getByRole("button", { name: "Undo" }).click();
    await page.getByText("600 of 600 left").waitFor();
    await page.getByRole("button", { name: "Disable" }).click();
    await page.getByText("disabled", { exact: true }).waitFor();
    await page.getByRole("button", { name: "Undo" }).click();
    await page.getByText("active", { exact: true }).waitFor();
    await visit("/audit?user=dave");
    await page.getByText("“Undone: by phone”").waitFor();
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("whoever is slower chooses between both values of a user", async () => {
    const { page, visit, faults } = await openPanel(browser, proxy, { user: "boss" });
    const headers = { ...bearer(await proxy.login("boss")), "content-type": "application/json" };
    await visit("/users/carol?tab=settings");
    await page.locator("[name=parallel]").fill("3");
    await fetch(`${proxy.url}/admin/users/carol`, { method: "PATCH", headers, body: '{"max_parallel":7}' });
    await page.getByRole("button", { name: "Save" }).click();
    const conflict = page.getByRole("dialog", { name: "Somebody else was faster" });
    expect(await conflict.locator(".changed").innerText()).toMatch(/3[^]*7/);
    await conflict.getByRole("button", { name: "Save mine" }).click();
    await page.getByText("Saved.").waitFor();
    const carol = (await (await fetch(`${proxy.url}/admin/users/carol`, { headers })).json()) as {
      max_parallel: number;
    };
    expect(carol.max_parallel).toBe(3);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("whoever is slower chooses between both values of a group", async () => {
    const { page, visit, faults } = await openPanel(browser, proxy, { user: "boss" });
    const headers = { ...bearer(await proxy.login("boss")), "content-type": "application/json" };
    const group = `${proxy.url}/admin/groups/raced`;
    await fetch(`${proxy.url}/admin/groups`, { method: "POST", headers, body: '{"name":"raced"}' });
    await visit("/groups/raced");
    await page.locator("[name=parallel]").fill("3");
    await fetch(group, { method: "PATCH", headers, body: '{"max_parallel":7}' });
    await page.getByRole("button", { name: "Save" }).click();
    const conflict = page.getByRole("dialog", { name: "Somebody else was faster" });
    expect(await conflict.locator(".changed").innerText()).toMatch(/3[^]*7/);
    await conflict.getByRole("button", { name: "Save mine" }).click();
    await page.getByText("Saved.").waitFor();
    expect(await (await fetch(group, { headers })).json()).toMatchObject({ max_parallel: 3 });
    await fetch(group, { method: "DELETE", headers });
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("a provider is tested by one small chat", async () => {
    const { page, visit, faults } = await openPanel(browser, proxy, { user: "boss" });
    await visit("/providers");
    await page.getByRole("button", { name: "Test", exact: true }).click();
    const dialog = page.getByRole("dialog");
    await dialog.locator("[name=model]").fill("sim-fast");
    await dialog.getByRole("button", { name: "Test", exact: true }).click();
    await dialog.getByText("HTTP 200").waitFor();
    await dialog.getByText("tokens in").waitFor();
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("a provider goes out of service and back by Undo", async () => {
    const { page, visit, faults } = await openPanel(browser, proxy, { user: "boss" });
    await visit("/providers");
    await page.getByRole("button", { name: "Take out of service" }).click();
    await page.fill("dialog [name=reason]", "maintenance");
    await page.click("dialog button[type=submit]");
    await page.getByText("out of service", { exact: true }).waitFor();
    await page.getByRole("button", { name: "Undo" }).click();
    await page.getByText("up", { exact: true }).waitFor();
    expect(faults).toEqual([]);
    await page.context().close();
  });

  test("events appear as they happen in every tab, and new requests wait behind a button", async () => {
    const first = await openPanel(browser, proxy, { user: "boss" });
    await first.visit("/requests?user=carol");
    const other = await first.context.newPage();
    // Without `follow` what comes after the first events waits behind a button.
    await other.goto(`${proxy.url}/panel/events?user=carol&follow=1`);
    await other.locator("main h1").waitFor();
    await first.page.getByText("live", { exact: true }).waitFor();
    await other.getByText("live", { exact: true }).waitFor();
    const token = await proxy.login("carol");
    await other.getByText("login.succeeded").first().waitFor();
    const messages = [{ role: "user", content: "Hello" }];
    await (await post(`${proxy.url}/v1/chat/completions`, { model: "sim-fast", messages }, bearer(token))).text();
    await other.getByText("chat.finished").first().waitFor();
    // The list was empty: it fills by itself.
    await first.page.locator("tbody").getByText("sim-fast").waitFor();
    await (await post(`${proxy.url}/v1/chat/completions`, { model: "sim-fast", messages }, bearer(token))).text();
    await first.page.getByRole("button", { name: "1 new" }).click();
    await first.page.locator("tbody tr").nth(1).waitFor();
    expect(first.faults).toEqual([]);
    await first.context.close();
  });

  test("ten tabs are live over one stream, which the next one takes over when its tab is closed", async () => {
    const first = await openPanel(browser, proxy, { user: "boss" });
    const leaders: Page[] = [];
    first.context.on("request", (request) => {
      if (new URL(request.url()).pathname === "/admin/events") leaders.push(request.frame().page());
    });
    const tabs = [first.page, ...(await Promise.all(Array.from({ length: 9 }, () => first.context.newPage())))];
    for (const tab of tabs) {
      await tab.goto(`${proxy.url}/panel/events?user=bob&follow=1`);
      await tab.locator("main h1").waitFor();
    }
    const token = await proxy.login("bob");
    const chat = async (model: string): Promise<void> => {
      const body = { model, messages: [{ role: "user", content: "Hello" }] };
      await (await post(`${proxy.url}/v1/chat/completions`, body, bearer(token))).text();
    };
    await chat("sim-fast");
    for (const tab of tabs) await tab.locator("tbody").getByText("sim-fast").first().waitFor();
    // The first tab had a stream before it was loaded again: what counts is who reads now.
    const leader = leaders.at(-1);
    const before = leaders.length;
    await leader?.close();
    const others = tabs.filter((tab) => tab !== leader);
    expect(others).toHaveLength(9);
    await expect.poll(() => leaders.length, { timeout: 30_000 }).toBe(before + 1);
    await chat("sim-no-usage");
    for (const tab of others) await tab.locator("tbody").getByText("sim-no-usage").first().waitFor();
    expect(leaders).toHaveLength(before + 1);
    expect(first.faults).toEqual([]);
    await first.context.close();
  }, 120_000);

  test("the keyboard leads everywhere, and the language changes at once", async () => {
    const { page, faults } = await openPanel(browser, proxy, { user: "boss" });
    await page.keyboard.press("g");
    await page.keyboard.press("n");
    await page.locator("main h1", { hasText: "Users" }).waitFor();
    await page.keyboard.press("/");
    await page.keyboard.type("carol");
    await page.locator("tbody tr").nth(1).waitFor({ state: "detached" });
    expect(page.url()).toContain("search=carol");
    await page.keyboard.press("Escape");
    await page.keyboard.press("?");
    await page.getByRole("dialog", { name: "Keyboard" }).waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "中文" }).click();
    await page.locator("main h1", { hasText: "用户" }).waitFor();
    expect(faults).toEqual([]);
    await page.context().close();
  });
});
