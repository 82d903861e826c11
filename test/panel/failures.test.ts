import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasBrowser, openPanel, startBrowser } from "../support/browser.ts";
import { alicePassword, bearer, post, type RunningProxy, startProxy, userFile } from "../support/start-proxy.ts";

const busy = { status: 503, contentType: "text/html", body: "<h1>Busy</h1>" };

describe.skipIf(!hasBrowser)("the panel where something fails, is slow, or is done elsewhere meanwhile", () => {
  let browser: Browser;
  let proxy: RunningProxy;

  beforeAll(async () => {
    const names = ["alice", "bob", "carol", "dora", ...Array.from({ length: 110 }, (_, at) => `many-${at}`)];
    proxy = await startProxy({
      users: {
        boss: userFile("boss", alicePassword, 'roles = ["admin"]\n'),
        ...Object.fromEntries(names.map((name) => [name, userFile(name, alicePassword)])),
      },
    });
    browser = await startBrowser();
  });
  afterAll(async () => {
    await browser.close();
    await proxy.dispose();
  });

  async function patchUser(name: string, fields: object): Promise<void> {
    const headers = { ...bearer(await proxy.login("boss")), "content-type": "application/json" };
    const answer = await fetch(`${proxy.url}/admin/users/${name}`, {
      method: "PATCH",
      headers,
      body: JSON.stringify(fields),
    });
    expect(answer.status).toBe(200);
  }

  async function userOf(name: string): Promise<Readonly<Record<string, unknown>>> {
    const answer = await fetch(`${proxy.url}/admin/users/${name}`, { headers: bearer(await proxy.login("boss")) });
    return (await answer.json()) as Readonly<Record<string, unknown>>;
  }

  async function keysOf(name: string): Promise<readonly string[]> {
    const answer = await fetch(`${proxy.url}/auth/keys`, { headers: bearer(await proxy.login(name)) });
    const { keys } = (await answer.json()) as { keys: readonly { name: string }[] };
    return keys.map((key) => key.name);
  }

  async function endSessions(name: string): Promise<void> {
    await fetch(`${proxy.url}/auth/logout-all`, { method: "POST", headers: bearer(await proxy.login(name)) });
  }

  async function logIn(page: Page, name: string): Promise<void> {
    const form = page.locator(".login-box");
    await form.locator("[name=username]").fill(name);
    await form.locator("[name=password]").fill(alicePassword);
    await form.locator("button[type=submit]").click();
  }

  test("a proxy that does not answer at first is no reason to log in again", async () => {
    const { page, context } = await openPanel(browser, proxy, { user: "alice" });
    await page.route("**/panel/api/me", (route) => route.fulfill(busy));
    await page.reload();
    await page.getByText("http_503").waitFor();
    expect(await page.locator("[name=password]").count()).toBe(0);
    await page.unroute("**/panel/api/me");
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByText("Hello, alice").waitFor();
    await context.close();
  });

  test("a page whose program did not come is asked for again, and stands in no other's way", async () => {
    const { page, context } = await openPanel(browser, proxy, { user: "boss" });
    await page.evaluate(`sessionStorage.setItem("panel.reloaded", String(Date.now()))`);
    await page.route(/\/assets\/mine-/, (route) => route.abort());
    await page.getByRole("link", { name: "API keys" }).click();
    await page.locator("main .error").waitFor();
    await page.getByRole("link", { name: "Users", exact: true }).click();
    await page.locator("main h1", { hasText: "Users" }).waitFor();
    expect(await page.locator("main .error").count()).toBe(0);
    await page.unroute(/\/assets\/mine-/);
    await page.getByRole("link", { name: "API keys" }).click();
    await page.locator("main h1", { hasText: "API keys" }).waitFor();
    await context.close();
  });

  test("a page of an earlier list that comes late is not added to the present one", async () => {
    const { page, context, visit, settled } = await openPanel(browser, proxy, { user: "boss" });
    await visit("/users");
    let release: () => void = () => undefined;
    const late = new Promise<void>((resolve) => (release = resolve));
    await page.route(/\/admin\/users\?.*cursor=/, async (route) => {
      await late;
      await route.continue().catch(() => undefined);
    });
    const asked = page.waitForRequest(/cursor=/);
    await page.getByRole("button", { name: "Show more" }).click();
    const request = await asked;
    await page.locator("main [name=search]").fill("dora");
    await page.locator("tbody tr").nth(1).waitFor({ state: "detached" });
    const over = Promise.race([
      request.response(),
      page.waitForEvent("requestfailed", (failed) => failed.url() === request.url()),
    ]);
    release();
    await over.catch(() => undefined);
    await settled();
    expect(await page.locator("tbody tr").allInnerTexts()).toHaveLength(1);
    await context.close();
  });

  test("another person who logs in on top of a page does not send what the first one typed", async () => {
    const { page, context, visit } = await openPanel(browser, proxy, { user: "bob" });
    await visit("/keys");
    await page.getByRole("button", { name: "Make a key" }).first().click();
    await page.fill("dialog [name=name]", "of bob");
    await endSessions("bob");
    await page.click("dialog button[type=submit]");
    await page.getByRole("dialog", { name: "Your session has ended" }).waitFor();
    await logIn(page, "carol");
    await page.locator(".menu-foot", { hasText: "carol" }).waitFor();
    await page.locator("dialog").waitFor({ state: "detached" });
    expect(await keysOf("carol")).toEqual([]);
    await context.close();
  });

  test("other tabs follow a logout, a login as the same user, and one as another", async () => {
    const { page, context, visit, faults } = await openPanel(browser, proxy, { user: "bob" });
    await visit("/keys");
    await page.getByRole("button", { name: "Make a key" }).first().click();
    await page.fill("dialog [name=name]", "kept");
    const other = await context.newPage();
    await other.goto(`${proxy.url}/panel/home`);
    await other.getByText("Log out").click();
    const again = page.getByRole("dialog", { name: "Your session has ended" });
    await again.waitFor();
    await logIn(other, "bob");
    await again.waitFor({ state: "detached" });
    expect(await page.locator("dialog [name=name]").inputValue()).toBe("kept");
    await other.getByText("Log out").click();
    await logIn(other, "carol");
    await page.locator(".menu-foot", { hasText: "carol" }).waitFor();
    expect(await page.locator("dialog").count()).toBe(0);
    expect(faults).toEqual([]);
    await context.close();
  });

  test("what is typed stays where the same page does something else, and follows what others change elsewhere", async () => {
    const { page, context, visit } = await openPanel(browser, proxy, { user: "boss" });
    await visit("/users/alice?tab=settings");
    await page.locator("[name=models]").fill("deepseek-*");
    await patchUser("alice", { max_parallel: 7 });
    await page.getByRole("button", { name: "Disable" }).click();
    await page.locator("header .badge", { hasText: "disabled" }).waitFor();
    await expect.poll(() => page.locator("[name=parallel]").inputValue()).toBe("7");
    expect(await page.locator("[name=models]").inputValue()).toBe("deepseek-*");
    await page.getByRole("button", { name: "Enable" }).click();
    await page.locator("header .badge", { hasText: "active" }).waitFor();
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText("Saved.").waitFor();
    expect(await userOf("alice")).toMatchObject({ max_parallel: 7, models: ["deepseek-*"], is_active: true });
    // Where both have changed the same, one chooses.
    await page.locator("[name=parallel]").fill("3");
    await patchUser("alice", { max_parallel: 9 });
    await page.getByRole("button", { name: "Disable" }).click();
    await page.locator("header .badge", { hasText: "disabled" }).waitFor();
    await page.getByRole("button", { name: "Save" }).click();
    const conflict = page.getByRole("dialog", { name: "Somebody else was faster" });
    expect(await conflict.locator(".changed").innerText()).toMatch(/3[^]*9/);
    await conflict.getByRole("button", { name: "Save mine" }).click();
    await page.getByText("Saved.").waitFor();
    expect(await userOf("alice")).toMatchObject({ max_parallel: 3 });
    await context.close();
  });

  test("nothing is typed into a form that is reset once what was saved is shown", async () => {
    const { page, context, visit } = await openPanel(browser, proxy, { user: "boss" });
    await visit("/users/dora?tab=settings");
    const parallel = page.locator("[name=parallel]");
    await parallel.fill("4");
    let release = (): void => undefined;
    const released = new Promise<void>((resolve) => (release = resolve));
    await page.route("**/admin/users/dora", async (route) => {
      if (route.request().method() === "GET") await released;
      await route.continue();
    });
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText("Saved.").waitFor();
    expect(await parallel.isDisabled()).toBe(true);
    release();
    await parallel.fill("5");
    await page.getByRole("button", { name: "Save" }).click();
    await expect.poll(async () => (await userOf("dora")).max_parallel).toBe(5);
    await context.close();
  });

  test("Undo takes back one's own change, not what somebody else has changed since", async () => {
    const { page, context, visit } = await openPanel(browser, proxy, { user: "boss" });
    await visit("/users/dora?tab=settings");
    await page.locator("[name=parallel]").fill("3");
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText("Saved.").waitFor();
    await patchUser("dora", { max_parallel: 9 });
    await page.getByRole("button", { name: "Undo" }).click();
    await page.locator(".toasts", { hasText: "precondition_failed" }).waitFor();
    expect(await userOf("dora")).toMatchObject({ max_parallel: 9 });
    await page.getByRole("button", { name: "Disable" }).click();
    await page.getByText("dora is disabled", { exact: false }).waitFor();
    await patchUser("dora", { is_active: true });
    await patchUser("dora", { is_active: false });
    await patchUser("dora", { ban_reason: "seen", banned_until: "2030-01-01T00:00:00Z" });
    await page.getByRole("button", { name: "Undo" }).click();
    await page.locator(".toasts", { hasText: "precondition_failed" }).waitFor();
    expect(await userOf("dora")).toMatchObject({ is_active: false });
    await context.close();
  });

  test("the field that is wrong is marked and has the focus, with what is right, and keeps what was typed", async () => {
    const { page, context, visit } = await openPanel(browser, proxy, { user: "boss" });
    await visit("/groups");
    await page.getByRole("button", { name: "New group" }).click();
    await page.fill("dialog [name=name]", "faulty");
    await page.fill("dialog [name=members]", "alice, nobody!");
    await page.fill("dialog [name=max]", "1.5");
    const wrong = page.locator("dialog [aria-invalid=true]");
    const focused = page.locator("dialog [aria-invalid=true]:focus");
    const name = (): Promise<string | null> => focused.getAttribute("name");
    await page.click("dialog button[type=submit]");
    await expect.poll(name).toBe("members");
    await page.fill("dialog [name=members]", "alice, bob");
    await page.click("dialog button[type=submit]");
    await expect.poll(name).toBe("max");
    expect(await page.locator("dialog .error").innerText()).toContain("expected a whole number");
    expect(await wrong.count()).toBe(1);
    expect(await wrong.inputValue()).toBe("1.5");
    await visit("/account");
    await page.fill("[name=current]", alicePassword);
    await page.fill("[name=new]", "another horse battery");
    await page.fill("[name=again]", "another horse batterz");
    await page.getByRole("button", { name: "Change password" }).click();
    const error = page.locator("main .error");
    await error.waitFor();
    expect(await error.innerText()).toBe("The two new passwords differ.");
    expect(await page.locator("[aria-invalid=true]").getAttribute("name")).toBe("again");
    await page.fill("[name=current]", "not her password");
    await page.fill("[name=again]", "another horse battery");
    await page.getByRole("button", { name: "Change password" }).click();
    await error.getByText("The current password is wrong.").first().waitFor();
    expect(await error.innerText()).not.toContain("You may not do that");
    expect(await page.locator("[aria-invalid=true]").getAttribute("name")).toBe("current");
    await context.close();
  });

  test("a double click does once what a button does", async () => {
    const { page, context, visit } = await openPanel(browser, proxy, { user: "carol" });
    const other = await openPanel(browser, proxy, { user: "carol" });
    await visit("/account");
    const ended: string[] = [];
    let release: () => void = () => undefined;
    const late = new Promise<void>((resolve) => (release = resolve));
    await page.route("**/auth/sessions/*", async (route) => {
      ended.push(route.request().url());
      await late;
      await route.continue();
    });
    const row = page.locator("tbody tr", { hasNotText: "this one" });
    await row.first().getByRole("button", { name: "End" }).dblclick();
    await expect.poll(() => ended.length).toBe(1);
    release();
    await page.getByText("The session has ended.").waitFor();
    expect(ended).toHaveLength(1);
    expect(await page.locator(".error").count()).toBe(0);
    await other.context.close();
    await context.close();
  });

  test("an answer that breaks off says so, with its code, and keeps what came", async () => {
    const { page, context, visit } = await openPanel(browser, proxy, { user: "carol" });
    await visit("/chat?model=sim-fast");
    const chunk = (content: string) => `data: {"choices":[{"delta":{"content":"${content}"}}]}\n\n`;
    const answers = [
      chunk("half an ans"),
      `${chunk("half")}data: {"error":{"message":"No more.","code":"quota_exceeded_midstream"}}\n\n`,
      `data: {"choices":[{"delta":{}}]}\n\ndata: [DONE]\n\n`,
    ];
    const sent: string[] = [];
    await page.route("**/v1/chat/completions", (route) => {
      sent.push(route.request().postData() ?? "");
      return route.fulfill({ contentType: "text/event-stream", body: answers[sent.length - 1] ?? "" });
    });
    const ask = async (): Promise<void> => {
      await page.fill("textarea", "Hello there");
      await page.keyboard.press("Enter");
    };
    await ask();
    await page.locator(".error", { hasText: "answer_broke_off" }).waitFor();
    expect(await page.locator(".turn.assistant").innerText()).toMatch(/half an ans[^]*stopped/);
    await ask();
    await page.locator(".error", { hasText: "quota_exceeded_midstream" }).waitFor();
    // An answer without text is over as well.
    await ask();
    await page.locator(".turn.assistant").nth(2).getByRole("button", { name: "Copy" }).waitFor();
    expect(await page.locator(".turn[aria-busy=true]").count()).toBe(0);
    await page.route("**/v1/chat/completions", (route) => {
      sent.push(route.request().postData() ?? "");
      return route.abort();
    });
    await ask();
    await page.locator(".error", { hasText: "unreachable" }).waitFor();
    expect(await page.locator("textarea").inputValue()).toBe("Hello there");
    expect(sent.at(-1)).not.toContain('"content":""');
    await context.close();
  });

  test("a tab that takes the event stream over before any event goes on where the first one was", async () => {
    const own = await startProxy({ users: { boss: userFile("boss", alicePassword, 'roles = ["admin"]\n') } });
    const first = await openPanel(browser, own, { user: "boss" });
    await first.visit("/events");
    await first.page.getByText("live", { exact: true }).waitFor();
    const second = await first.context.newPage();
    await second.goto(`${own.url}/panel/events?follow=1`);
    await second.getByText("live", { exact: true }).waitFor();
    // The second one's stream begins late: what happens meanwhile must be in it.
    let release: () => void = () => undefined;
    const late = new Promise<void>((resolve) => (release = resolve));
    await second.route("**/admin/events*", async (route) => {
      await late;
      await route.continue();
    });
    const asked = second.waitForRequest("**/admin/events*");
    await first.page.close();
    expect(new URL((await asked).url()).searchParams.get("last_event_id")).toMatch(/^[0-9a-f-]{36}$/);
    const token = await own.login("boss");
    await post(`${own.url}/auth/keys`, { name: "made meanwhile" }, bearer(token));
    release();
    await second.getByText("api_key.created").first().waitFor();
    await first.context.close();
    await own.dispose();
  });
});
