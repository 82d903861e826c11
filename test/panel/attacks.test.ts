import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasBrowser, openPanel, startBrowser } from "../support/browser.ts";
import { alicePassword, bearer, post, type RunningProxy, startProxy, userFile } from "../support/start-proxy.ts";

const script = `<img src=x onerror="window.stolen=1"><script>window.stolen=1</script>`;
const inToml = JSON.stringify(script);

describe.skipIf(!hasBrowser)("text of others in the panel", () => {
  let browser: Browser;
  let proxy: RunningProxy;

  beforeAll(async () => {
    proxy = await startProxy({
      users: {
        boss: userFile("boss", alicePassword, 'roles = ["admin"]\n'),
        alice: userFile("alice", alicePassword, `ban_reason = ${inToml}\n[metadata]\nnote = ${inToml}\n`),
      },
    });
    const headers = bearer(await proxy.login("alice"));
    // A model, a client's name and an API key's name are what a user writes; a login's name is what anybody does.
    const body = { model: script, messages: [{ role: "user", content: "x" }] };
    await post(`${proxy.url}/v1/chat/completions`, body, { ...headers, "user-agent": script });
    await post(`${proxy.url}/auth/keys`, { name: script.slice(0, 60) }, headers);
    await post(`${proxy.url}/auth/login`, { username: script, password: script });
    await post(`${proxy.url}/auth/login`, { username: "alice", password: script }, { "user-agent": script });
    browser = await startBrowser();
  });
  afterAll(async () => {
    await browser.close();
    await proxy.dispose();
  });

  test("stays text wherever it is shown", async () => {
    const tab = await openPanel(browser, proxy, { user: "boss" });
    const tabs = ["settings", "keys", "sessions", "spend", "behaviour"].map((name) => `users/alice?tab=${name}`);
    const query = encodeURIComponent(script);
    const pages = [...tabs, "requests", `requests?model=${query}`, `requests?request_id=${query}`, "overview", "audit"];
    let seen = "";
    for (const path of [
      ...pages,
      `users?search=${query}`,
      `events?type=${query}`,
      `users/${query}`,
      `groups/${query}`,
    ]) {
      await tab.visit(`/${path}`);
      seen += await tab.page.locator("main").innerText();
      expect(await tab.page.evaluate("window.stolen")).toBeUndefined();
      expect(await tab.page.locator("main img, main script").count()).toBe(0);
    }
    expect(seen).toContain(script);
    expect(tab.faults).toEqual([]);
    await tab.context.close();
  });

  test("an injected script does not run, and no page is shown in another's frame", async () => {
    const tab = await openPanel(browser, proxy, { user: "boss" });
    const refused = await tab.page.evaluate(`(() => {
      try { document.body.innerHTML = "<b>x</b>"; return "set"; } catch (error) { return error.name; }
    })()`);
    expect(refused).toBe("TypeError");
    const answer = await fetch(`${proxy.url}/panel/`);
    expect(answer.headers.get("content-security-policy")).toContain("frame-ancestors 'none'");
    await tab.context.close();
  });
});
