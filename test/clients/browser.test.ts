import { existsSync, readFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import ts from "typescript";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasBrowser, startBrowser } from "../support/browser.ts";
import { eventually } from "../support/eventually.ts";
import { usedRequests } from "../support/quota.ts";
import { alicePassword, bearer, post, type RunningProxy, startProxy } from "../support/start-proxy.ts";

const folder = join(import.meta.dirname, "../../clients/typescript");

/** The package's folder as a web server shows it after `npm run build`, at an origin of its own. */
function servePackage(): Promise<Server> {
  const { ES2022: target } = ts.ScriptTarget;
  const server = createServer(({ url = "/" }, answer) => {
    const { pathname } = new URL(url, "http://localhost");
    const name = /^\/dist\/([a-z-]+)\.js$/.exec(pathname)?.[1];
    const source = join(folder, name === undefined ? pathname : `src/${name}.ts`);
    if (!existsSync(source) || pathname === "/") return answer.writeHead(404).end();
    const text = readFileSync(source, "utf8");
    answer.setHeader("content-type", name === undefined ? "text/html" : "text/javascript");
    const options = { target, module: ts.ModuleKind.ES2022, rewriteRelativeImportExtensions: true };
    return answer.end(name === undefined ? text : ts.transpileModule(text, { compilerOptions: options }).outputText);
  });
  return new Promise((resolve) =>
    server.listen(0, "127.0.0.1", () => {
      resolve(server);
    }),
  );
}

describe.skipIf(!hasBrowser)("the TypeScript client in a browser", () => {
  let browser: Browser;
  let files: Server;
  let origin: string;
  let proxy: RunningProxy;

  beforeAll(async () => {
    files = await servePackage();
    origin = `http://127.0.0.1:${(files.address() as AddressInfo).port}`;
    proxy = await startProxy({ server: `cors_origins = ["${origin}"]\n` });
    browser = await startBrowser();
  });
  afterAll(async () => {
    await browser.close();
    await proxy.dispose();
    files.close();
  });

  /** The example page, by the model that it asks; and what went wrong in it. */
  async function openExample(model: string): Promise<{ page: Page; faults: string[] }> {
    const page = await browser.newPage();
    page.setDefaultTimeout(60_000);
    const faults: string[] = [];
    page.on("pageerror", ({ message }) => faults.push(message));
    await page.goto(`${origin}/examples/browser.html?proxy=${encodeURIComponent(proxy.url)}&model=${model}`);
    return { page, faults };
  }

  async function logIn(page: Page, password: string): Promise<void> {
    await page.fill("[name=username]", "alice");
    await page.fill("[name=password]", password);
    await page.click("#login button");
  }

  const used = async (): Promise<number> => usedRequests(proxy, await proxy.login());

  test("logs in at another origin, streams, and is charged once", async () => {
    const { page, faults } = await openExample("deepseek-flash");
    await logIn(page, "wrong horse battery");
    await page.getByText("invalid_credentials").waitFor();
    await logIn(page, alicePassword);
    await page.getByText("Logged in").waitFor();
    const before = await used();
    await page.fill("[name=text]", "Say hello.");
    await page.click("[name=send]");
    await page.getByText(/^\d+ tokens$/).waitFor();
    expect((await page.locator("#answer").innerText()).length).toBeGreaterThan(10);
    expect(await used()).toBe(before + 1);
    expect(faults).toEqual([]);
    await page.close();
  });

  test("ends the chat at the proxy when the page stops it", async () => {
    const { page } = await openExample("sim-slow");
    await logIn(page, alicePassword);
    await page.fill("[name=text]", "Count slowly.");
    await page.click("[name=send]");
    await eventually(async () => {
      expect(await page.locator("#answer").innerText()).not.toBe("");
    });
    expect(proxy.services.concurrency.inFlight()).toBe(1);
    await page.click("[name=stop]");
    await page.getByText("AbortError").waitFor();
    await eventually(() => {
      expect(proxy.services.concurrency.inFlight()).toBe(0);
    });
    await page.close();
  });

  test("signs with a key that asks for it", async () => {
    const wanted = { name: "page", require_signature: true };
    const answer = await post(`${proxy.url}/auth/keys`, wanted, bearer(await proxy.login()));
    const key = (await answer.json()) as { key: string; signing_secret: string };
    const { page } = await openExample("deepseek-flash");
    const access = JSON.stringify({ baseUrl: proxy.url, apiKey: key.key, signing: { secret: key.signing_secret } });
    // Code for the page is text here: these tests are compiled without a browser's types.
    const answers = await page.evaluate(`(async () => {
      const { createProxyFetch } = await import("/dist/index.js");
      const body = JSON.stringify({ model: "deepseek-flash", messages: [{ role: "user", content: "x" }] });
      const request = { method: "POST", headers: { "content-type": "application/json" }, body };
      const url = ${JSON.stringify(`${proxy.url}/v1/chat/completions`)};
      const signed = await createProxyFetch(${access})(url, request);
      const plain = await fetch(url, { ...request, headers: { ...request.headers, authorization: "Bearer ${key.key}" } });
      return [signed.status, plain.status];
    })()`);
    expect(answers).toEqual([200, 401]);
    await page.close();
  });

  test("answers a page without the package: what NextChat sends from its own", async () => {
    const made = await post(`${proxy.url}/auth/keys`, { name: "chat" }, bearer(await proxy.login()));
    const { key } = (await made.json()) as { key: string };
    const page = await browser.newPage();
    await page.goto(`${origin}/examples/browser.html`);
    const payload = {
      messages: [{ role: "user", content: "Say hello." }],
      stream: true,
      model: "deepseek-flash",
      temperature: 0.5,
      presence_penalty: 0,
      frequency_penalty: 0,
      top_p: 1,
    };
    const answer = await page.evaluate(`(async () => {
      const headers = { "Content-Type": "application/json", Accept: "application/json", Authorization: "Bearer ${key}" };
      const url = ${JSON.stringify(`${proxy.url}/v1/chat/completions`)};
      const response = await fetch(url, { method: "POST", headers, body: ${JSON.stringify(JSON.stringify(payload))} });
      return { status: response.status, type: response.headers.get("content-type"), text: await response.text() };
    })()`);
    expect(answer).toMatchObject({ status: 200, type: expect.stringContaining("text/event-stream") as string });
    expect((answer as { text: string }).text.trimEnd().endsWith("data: [DONE]")).toBe(true);
    await page.close();
  });
});
