// docs/openapi.json: what GET /openapi.json of a proxy with the default config says. `npm run docs` writes it.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

/** @returns {Promise<string>} the document as formatted JSON */
export async function openapiDocument(root) {
  const folder = mkdtempSync(join(tmpdir(), "openapi-"));
  const config = join(folder, "config.toml");
  writeFileSync(config, "[server]\nport = 0\n");
  const server = spawn(process.execPath, [join(root, "dist", "main.js"), "--config", config], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { PATH: process.env.PATH },
  });
  try {
    const url = await new Promise((resolve, reject) => {
      server.once("close", () => reject(new Error("the proxy did not start")));
      createInterface({ input: server.stdout }).on("line", (line) => {
        if (line.includes('"listening"')) resolve(JSON.parse(line).url);
      });
    });
    const document = await (await fetch(`${url}/openapi.json`)).json();
    return `${JSON.stringify(document, undefined, 2)}\n`;
  } finally {
    server.kill();
    if (server.exitCode === null) await once(server, "close");
    rmSync(folder, { recursive: true, force: true });
  }
}
