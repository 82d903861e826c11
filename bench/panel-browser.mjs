// Chromium as the panel's users have it: on this machine, or on a slow phone.
import { chromium } from "playwright-core";

const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const phone = { width: 390, height: 844 };
const desktop = { width: 1280, height: 800 };

/** A slow phone: a quarter of this CPU, 1.6 Mbit/s down, 750 kbit/s up, and 150 ms to an answer's first byte. */
const slow = {
  cpu: 4,
  network: { offline: false, latency: 150, downloadThroughput: 200_000, uploadThroughput: 93_750 },
};

export function startBrowser() {
  const quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"];
  const args = ["--no-sandbox", "--disable-gpu", "--no-first-run", ...quiet];
  return chromium.launch({ executablePath, headless: true, args });
}

/** A browser with an empty cache; logged in if a user is named. */
export async function openContext(browser, url, { user, password, isPhone = false } = {}) {
  const context = await browser.newContext({ locale: "en-GB", viewport: isPhone ? phone : desktop });
  if (user !== undefined) {
    const answer = await context.request.post(`${url}/panel/api/login`, {
      data: { username: user, password },
      headers: { "content-type": "application/json", origin: url },
    });
    if (!answer.ok()) throw new Error(`login failed: ${await answer.text()}`);
  }
  return context;
}

export async function slowDown(page) {
  const session = await page.context().newCDPSession(page);
  await session.send("Network.enable");
  await session.send("Network.emulateNetworkConditions", slow.network);
  await session.send("Emulation.setCPUThrottlingRate", { rate: slow.cpu });
}

/**
 * Loads an address. Ms from its beginning to the first paint of content, and to the page's own heading, and the kilobytes
 * that came over the wire.
 */
export async function measureLoad(page, address) {
  await page.addInitScript(() => {
    const note = () => {
      if (window.headingAt === undefined && document.querySelector("h1") !== null) {
        // Painted in the frame after the one that is coming.
        window.headingAt = 0;
        requestAnimationFrame(() => setTimeout(() => (window.headingAt = performance.now())));
      }
    };
    new MutationObserver(note).observe(document, { childList: true, subtree: true });
  });
  await page.goto(address);
  await page.waitForFunction(() => window.headingAt > 0);
  return page.evaluate(() => {
    const paint = performance.getEntriesByName("first-contentful-paint")[0];
    const entries = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
    const bytes = entries.reduce((sum, { transferSize }) => sum + transferSize, 0);
    return { paintMs: paint?.startTime ?? window.headingAt, headingMs: window.headingAt, kilobytes: bytes / 1024 };
  });
}

/** Goes to a page of the panel as a click on a link would, and waits until all that it asked for has come. */
export async function visit(page, path) {
  await page.evaluate((href) => {
    const link = document.body.appendChild(document.createElement("a"));
    link.href = href;
    link.click();
    link.remove();
  }, `/panel${path}`);
  await page.locator("main h1").waitFor();
  // The first report after a start counts the whole journal.
  const loading = page.locator("main .dim, main [aria-busy='true']").first();
  await loading.waitFor({ state: "detached", timeout: 600_000 });
}
