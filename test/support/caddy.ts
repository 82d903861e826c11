import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { eventually } from "./eventually.ts";
import { freePort } from "./redis-server.ts";
import { tempDir } from "./temp-dir.ts";

const caddyfile = join(import.meta.dirname, "../../deploy/Caddyfile");

/** Whether Caddy is here. In CI it must be. */
export const hasCaddy = spawnSync("caddy", ["version"]).status === 0 || process.env.CI !== undefined;

/**
 * Starts Caddy with deploy/Caddyfile, but on a free port and before proxies at these ports of this machine. Stopped at the
 * end of the test.
 */
export async function startCaddy(proxyPorts: readonly number[]): Promise<{ readonly url: string }> {
  const folder = tempDir();
  const port = await freePort();
  let site = readFileSync(caddyfile, "utf8").replace(":8080 {", `http://127.0.0.1:${port} {`);
  for (const [index, proxy] of proxyPorts.entries())
    site = site.replace(`proxy${index + 1}:8080`, `127.0.0.1:${proxy}`);
  if (/proxy\d:/.test(site)) throw new Error(`deploy/Caddyfile has other proxies than these:\n${site}`);
  const file = join(folder, "Caddyfile");
  writeFileSync(file, `{\n\tadmin off\n}\n${site}`);
  const env = { PATH: process.env.PATH, HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder };
  const caddy = spawn("caddy", ["run", "--config", file, "--adapter", "caddyfile"], { env });
  let said = "";
  for (const stream of [caddy.stdout, caddy.stderr]) stream.on("data", (piece: Buffer) => (said += piece.toString()));
  onTestFinished(async () => {
    if (caddy.exitCode !== null) return;
    caddy.kill("SIGKILL");
    await once(caddy, "exit");
  });
  const url = `http://127.0.0.1:${port}`;
  await eventually(async () => {
    const answer = await fetch(`${url}/readyz`).catch(() => undefined);
    if (answer?.status !== 200) throw new Error(`Caddy passes nothing on:\n${said}`);
  }, 20_000);
  return { url };
}
