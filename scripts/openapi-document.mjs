// docs/openapi.json: what GET /openapi.json of a proxy with the default config says. `npm run docs` writes it.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { withBuiltProxy } from "./built-proxy.mjs";

/** @returns {Promise<string>} the document as formatted JSON */
export async function openapiDocument() {
  const folder = mkdtempSync(join(tmpdir(), "openapi-"));
  const config = join(folder, "config.toml");
  writeFileSync(config, "[server]\nport = 0\n");
  try {
    const document = await withBuiltProxy(config, async (url) => (await fetch(`${url}/openapi.json`)).json());
    return `${JSON.stringify(document, undefined, 2)}\n`;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
