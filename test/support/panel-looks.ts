import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { Page } from "playwright-core";
import { sizes } from "./browser.ts";
import { alicePassword, bearer, post, type RunningProxy, startProxy, userFile } from "./start-proxy.ts";

/** Every page of the panel, and every tab of a user's. */
export const panelPages: readonly string[] = [
  "home",
  "chat",
  "keys",
  "usage",
  "setup",
  "redeem",
  "account",
  "overview",
  "requests",
  "users",
  "users?new=1",
  "groups",
  "groups/team",
  "providers",
  "reports",
  "limits",
  "prices",
  "codes",
  "events",
  "config",
  "audit",
  "nodes",
  ...["quota", "settings", "keys", "sessions", "spend", "behaviour"].map((tab) => `users/alice?tab=${tab}`),
];

const config = `
[panel]
title = "Our models"
[quota]
timezone = "Asia/Shanghai"
[quota.tiers]
basic = { limits = [{ metric = "requests", per = "month", max = 500 }, { metric = "cost", per = "day", max = 5 }] }
[groups.team]
members = ["alice"]
owners = ["alice"]
limits = [{ metric = "tokens", per = "month", max = 100000 }]
[[models.prices]]
models = ["sim-*"]
currency = "CNY"
cache_hit = 0.1
cache_miss = 1
output = 4
`;

/** A proxy with something to show on every page: an operator "boss", a user "alice" with chats and a key, and codes. */
export async function startFilledProxy(): Promise<RunningProxy> {
  const proxy = await startProxy({
    config,
    users: {
      boss: userFile("boss", alicePassword, 'roles = ["admin"]\n'),
      alice: userFile("alice", alicePassword),
    },
  });
  const token = await proxy.login("alice");
  for (let index = 0; index < 3; index += 1) {
    const messages = [{ role: "user", content: `Hello ${index}` }];
    await (await post(`${proxy.url}/v1/chat/completions`, { model: "sim-fast", messages }, bearer(token))).text();
  }
  await post(`${proxy.url}/auth/keys`, { name: "laptop" }, bearer(token));
  const codes = { name: "Workshop", count: 2, uses: 3, amount: "5", metric: "cost", per: "day" };
  await post(`${proxy.url}/admin/codes`, codes, bearer(await proxy.login("boss")));
  return proxy;
}

const axeSource = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

interface Violation {
  readonly id: string;
  readonly impact: string;
  readonly nodes: readonly { readonly html: string; readonly failureSummary: string }[];
}

/** Serious findings of axe-core, in words. */
export async function axeFindings(page: Page): Promise<readonly string[]> {
  // Not as a script of the page: its policy allows none but its own.
  const violations = await page.evaluate<readonly Violation[]>(
    `(async () => { if (!window.axe) { ${axeSource}\n } return (await window.axe.run(document, { resultTypes: ["violations"] })).violations; })()`,
  );
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes: [first] }) => `${id}: ${first?.html.slice(0, 200) ?? ""} ${first?.failureSummary ?? ""}`);
}

/**
 * Texts that somebody cannot read as a whole: cut off, outside of the window, or only by scrolling sideways. A text that is
 * cut may have a title that says it all; code, charts and what is only for screen readers are left out.
 */
export function cutTexts(page: Page, within = "body"): Promise<readonly string[]> {
  return page.evaluate<readonly string[]>(`(() => {
    const found = [];
    const name = (element) => element.outerHTML.slice(0, 120).replace(/\\s+/g, " ");
    const over = document.documentElement.scrollWidth - window.innerWidth;
    if (over > 0) found.push(over + " px wider than the window");
    const measure = document.createElement("canvas").getContext("2d");
    for (const element of document.querySelectorAll(${JSON.stringify(`${within} *`)})) {
      if (element.closest("svg, pre, textarea, .plot, .skip, thead, datalist") !== null) continue;
      const box = element.getBoundingClientRect();
      if (box.width === 0 || box.height === 0) continue;
      const style = getComputedStyle(element);
      if (style.visibility === "hidden") continue;
      const ownText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim() !== "");
      const wider = element.scrollWidth - element.clientWidth;
      const isInline = style.display === "inline";
      if (element.matches("input:not([type=checkbox])")) {
        measure.font = style.font;
        const room = element.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
        const text = element.value === "" ? element.placeholder : element.value;
        if (measure.measureText(text).width > room + 1) found.push("cut in its field: " + name(element));
      } else if (element.matches("select")) {
        measure.font = style.font;
        const text = element.selectedOptions[0]?.text ?? "";
        // Chromium's arrow takes some 20 px.
        const room = element.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight) - 16;
        if (measure.measureText(text).width > room + 1) found.push("cut in its field: " + name(element));
      } else if (!isInline && wider > 1) {
        if (style.overflowX === "auto" || style.overflowX === "scroll") found.push("scrolls sideways: " + name(element));
        else if (ownText && style.overflowX === "visible") found.push("wider than its box: " + name(element));
        else if (style.overflowX !== "visible" && element.title === "") found.push("cut: " + name(element));
      }
      if (ownText && (box.right > window.innerWidth + 1 || box.left < -1)) found.push("outside: " + name(element));
    }
    return found;
  })()`);
}

/**
 * What is wrong with what a page shows, in both themes, as it is and on a small phone. @param within what has been
 * opened last
 */
export async function faultsOfLook(page: Page, within?: string): Promise<readonly string[]> {
  const found: string[] = [];
  const size = page.viewportSize();
  for (const colorScheme of ["dark", "light"] as const) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    found.push(...(await axeFindings(page)).map((text) => `${colorScheme}: ${text}`));
  }
  found.push(...(await cutTexts(page, within)).map((text) => `${size?.width ?? 0} px wide: ${text}`));
  await page.setViewportSize(sizes.smallPhone);
  found.push(...(await cutTexts(page, within)));
  if (size !== null) await page.setViewportSize(size);
  return found;
}

/** The same in both languages; in the end the language is as it was. */
export async function faultsInBothLanguages(page: Page, within?: string): Promise<readonly string[]> {
  const found: string[] = [];
  for (let turn = 0; turn < 2; turn += 1) {
    const language = await page.evaluate<string>("document.documentElement.lang");
    found.push(...(await faultsOfLook(page, within)).map((text) => `${language}: ${text}`));
    // Not by a click: where a dialog is open the button lies behind it.
    await page.evaluate("document.querySelector('button.quiet[lang]').click()");
    await page.locator(`html:not([lang="${language}"])`).waitFor({ state: "attached" });
  }
  return found;
}
