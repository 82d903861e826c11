import { mkdir, mkdtemp, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { brotliCompressSync, gzipSync } from "node:zlib";
import Fastify from "fastify";
import { afterEach, describe, expect, it } from "vitest";
import { createPanelFiles } from "../../../src/http/panel/panel-files.ts";
import { registerPanelHeaders, registerPanelPages } from "../../../src/http/panel/panel-pages.ts";
import { AppError } from "../../../src/errors.ts";

const script = "console.log('the panel');";

describe("the panel's pages", () => {
  const folders: string[] = [];
  afterEach(() => Promise.all(folders.splice(0).map((folder) => rm(folder, { recursive: true }))));

  async function use({ isBuilt = true, isEnabled = true } = {}) {
    const outside = await mkdtemp(join(tmpdir(), "panel-"));
    folders.push(outside);
    const folder = join(outside, "panel");
    await writeFile(join(outside, "secret.js"), "the secret");
    const build = async (text: string, at: number): Promise<void> => {
      await mkdir(join(folder, "assets"), { recursive: true });
      await writeFile(join(folder, "assets", "app-1.js"), script);
      await writeFile(join(folder, "assets", "app-1.js.br"), brotliCompressSync(script));
      await writeFile(join(folder, "assets", "app-1.js.gz"), gzipSync(script));
      await writeFile(join(folder, "index.html"), text);
      await utimes(join(folder, "index.html"), at, at);
    };
    if (isBuilt) {
      await build("<p>first</p>", 1000);
      await symlink(join(outside, "secret.js"), join(folder, "assets", "link.js"));
    }
    let now = 0;
    const app = Fastify({ routerOptions: { ignoreTrailingSlash: true, ignoreDuplicateSlashes: true } });
    app.setErrorHandler((error, _request, reply) =>
      reply.code(error instanceof AppError ? error.status : 500).send({ code: (error as AppError).code }),
    );
    registerPanelHeaders(app, () => isEnabled);
    registerPanelPages(
      app,
      createPanelFiles(folder, () => now),
    );
    const get = (url: string, headers: Record<string, string> = {}) => app.inject({ url, headers });
    return { get, build, wait: () => (now += 1000) };
  }

  it("are one page for every path without a file, which is asked for again each time", async () => {
    const { get } = await use();
    for (const url of ["/panel/", "/panel/users", "/panel/users/jane.doe", "/panel/index.html?x=/..", "/panel//"]) {
      const response = await get(url);
      expect([response.statusCode, response.body], url).toEqual([200, "<p>first</p>"]);
      expect(response.headers).toMatchObject({
        "content-type": "text/html; charset=utf-8",
        "cache-control": "no-cache",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
      });
      expect(response.headers["content-security-policy"]).toBe(
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; font-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
      );
      const again = await get(url, { "if-none-match": String(response.headers.etag) });
      expect([again.statusCode, again.body], url).toEqual([304, ""]);
    }
    for (const url of ["/", "/?next=//evil.example"]) {
      const root = await get(url);
      expect([root.statusCode, root.headers.location]).toEqual([302, "/panel/"]);
    }
    const bare = await get("/panel");
    expect([bare.statusCode, bare.headers.location]).toEqual([308, "/panel/"]);
    // Nothing that a client sends is part of a redirect.
    expect((await get("/panel?next=//evil.example")).headers.location).toBe("/panel/");
    expect((await get("//evil.example/panel")).statusCode).toBe(404);
  });

  it("are sent compressed to whoever takes that, with assets to be kept for ever", async () => {
    const { get } = await use();
    const codings = { "gzip, deflate, br": "br", gzip: "gzip", "br;q=0, gzip;q=0.5": "gzip", identity: undefined };
    for (const [accepted, coding] of Object.entries(codings)) {
      const response = await get("/panel/assets/app-1.js", { "accept-encoding": accepted });
      expect(response.headers["content-encoding"], accepted).toBe(coding);
      expect(response.headers).toMatchObject({
        "content-type": "text/javascript; charset=utf-8",
        "cache-control": "public, max-age=31536000, immutable",
        vary: "accept-encoding",
      });
      if (coding === undefined) expect(response.body).toBe(script);
    }
  });

  it.each([
    "/panel/assets/nothing.js",
    "/panel/assets/",
    "/panel/assets/app-1",
    "/panel/assets/app-1.js.br",
    "/panel/nothing.css",
    "/panel/api/nothing",
    "/panel/assets/link.js",
    "/panel/../secret.js",
    "/panel/%2e%2e/secret.js",
    "/panel/..%2fsecret.js",
    "/panel/assets/..%2f..%2fsecret.js",
    "/panel/assets/..%5c..%5csecret.js",
    "/panel//etc/passwd.txt",
    "/panel/assets/app-1.js%00.png",
    "/panel/__proto__.js",
  ])("have nothing at %s", async (url) => {
    const { get } = await use();
    const response = await get(url);
    expect(response.statusCode).toBe(404);
    expect(response.body).not.toContain("the secret");
  });

  it("say how to build them where they are not built, and are there once they are", async () => {
    const { get, build, wait } = await use({ isBuilt: false });
    const missing = await get("/panel/");
    expect([missing.statusCode, missing.headers["cache-control"]]).toEqual([503, "no-store"]);
    expect(missing.body).toContain("npm run build");
    expect((await get("/panel/assets/app-1.js")).statusCode).toBe(404);
    await build("<p>first</p>", 1000);
    wait();
    expect((await get("/panel/")).body).toBe("<p>first</p>");
    await build("<p>second</p>", 2000);
    wait();
    expect((await get("/panel/users")).body).toBe("<p>second</p>");
    expect((await get("/panel/assets/app-1.js")).body).toBe(script);
  });

  it("are nowhere if they are switched off", async () => {
    const { get } = await use({ isEnabled: false });
    for (const url of ["/", "/panel", "/panel/", "/panel/assets/app-1.js"])
      expect((await get(url)).statusCode).toBe(404);
  });
});
