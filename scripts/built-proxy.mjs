import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";

/**
 * Runs the built proxy with a config, without any provider's key, while `act` uses it.
 * @template T
 * @param {string} config the path of its config.toml
 * @param {(url: string) => Promise<T>} act
 * @returns {Promise<T>} what `act` returns; rejects if the proxy does not start
 */
export async function withBuiltProxy(config, act) {
  const main = join(import.meta.dirname, "..", "dist", "main.js");
  const server = spawn(process.execPath, [main, "--config", config], {
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
    return await act(url);
  } finally {
    server.kill();
    if (server.exitCode === null && server.signalCode === null) await once(server, "close");
  }
}
