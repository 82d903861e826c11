import { existsSync } from "node:fs";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import { alicePassword, type RunningProxy } from "./start-proxy.ts";

/** Of Debian. The first has the same engine without a window, and takes less than half of the CPU. */
const programs = ["/usr/bin/chromium-headless-shell", "/usr/bin/chromium"];
const chromiumPath = process.env.CHROMIUM ?? programs.find((path) => existsSync(path)) ?? "/usr/bin/chromium";

/** Whether tests in a browser can run. Where everything must be there, in CI, they fail instead of being skipped. */
export const hasBrowser = existsSync(chromiumPath) || process.env.CI === "true";

export const sizes = {
  desktop: { width: 1280, height: 800 },
  phone: { width: 390, height: 844 },
  /** The narrowest that is still common. */
  smallPhone: { width: 360, height: 740 },
} as const;

/** Starts Debian's Chromium with an empty profile, and without its own requests to the outside. */
export function startBrowser(): Promise<Browser> {
  const quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"];
  return chromium.launch({
    executablePath: chromiumPath,
    headless: true,
    args: ["--no-sandbox", "--disable-gpu", "--no-first-run", ...quiet],
  });
}

export interface PanelTab {
  readonly page: Page;
  readonly context: BrowserContext;
  /** What the Content-Security-Policy has refused, exceptions, and requests to other origins: there must be none. */
  readonly faults: readonly string[];
  /** Goes to a page as a click on a link would, and waits until it has loaded. */
  visit(path: string): Promise<void>;
  /** Waits until what is shown has loaded. */
  settled(): Promise<void>;
}

/** A tab of the panel in a browser of its own language and size, logged in if a user is named. */
export async function openPanel(
  browser: Browser,
  proxy: Pick<RunningProxy, "url">,
  options: {
    readonly user?: string;
    readonly password?: string;
    readonly locale?: "en-GB" | "zh-CN";
    readonly size?: keyof typeof sizes;
    readonly dark?: boolean;
  } = {},
): Promise<PanelTab> {
  const { user, password = alicePassword, locale = "en-GB", size = "desktop", dark = false } = options;
  const context = await browser.newContext({
    locale,
    viewport: sizes[size],
    colorScheme: dark ? "dark" : "light",
    reducedMotion: "reduce",
    permissions: ["clipboard-read", "clipboard-write"],
  });
  const faults: string[] = [];
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  page.on("pageerror", ({ message }) => faults.push(`exception: ${message}`));
  page.on("console", (line) => {
    if (/content security policy|trusted ?type/i.test(line.text())) faults.push(line.text());
  });
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(proxy.url) && !url.startsWith("data:") && !url.startsWith("blob:"))
      faults.push(`request: ${url}`);
  });
  if (user !== undefined) {
    const origin = { "content-type": "application/json", origin: proxy.url };
    const answer = await context.request.post(`${proxy.url}/panel/api/login`, {
      data: { username: user, password },
      headers: origin,
    });
    if (!answer.ok()) throw new Error(`login failed: ${await answer.text()}`);
  }
  await page.goto(`${proxy.url}/panel/`);
  await page.locator("h1").waitFor();
  // What loads is dimmed.
  const settled = (): Promise<void> =>
    page.locator("main .dim, main [aria-busy='true']").first().waitFor({ state: "detached" });
  return {
    page,
    context,
    faults,
    settled,
    async visit(path) {
      // Code for the page is text here: these tests are compiled without a browser's types.
      const href = JSON.stringify(`/panel${path}`);
      await page.evaluate(`(() => {
        const link = document.body.appendChild(document.createElement("a"));
        link.href = ${href};
        link.click();
        link.remove();
      })()`);
      await page.locator("main h1").waitFor();
      await settled();
    },
  };
}
