import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished } from "vitest";
import { eventually } from "./eventually.ts";

const isInstalled = ["prometheus", "promtool"].every((program) => spawnSync(program, ["--version"]).status === 0);

/** As describe; skipped where there is no Prometheus, except in CI, where that is a failure. */
export const describeWithPrometheus = isInstalled || process.env.CI !== undefined ? describe : describe.skip;

/** What promtool says; throws unless it is content. */
export function promtool(args: readonly string[], input = ""): string {
  const { status, stdout, stderr } = spawnSync("promtool", args, { input, encoding: "utf8" });
  if (status !== 0) throw new Error(`promtool ${args.join(" ")}: ${stdout}${stderr}`);
  return `${stdout}${stderr}`;
}

export interface Prometheus {
  /** The `data` of an answer of its API. */
  api(path: string): Promise<unknown>;
}

/**
 * Starts a server that scrapes and evaluates every 200 ms.
 * @param target HOST:PORT
 * @param ruleFiles absolute paths
 */
export async function startPrometheus(target: string, ruleFiles: readonly string[]): Promise<Prometheus> {
  const folder = await mkdtemp(join(tmpdir(), "prometheus-"));
  const config = {
    global: { scrape_interval: "200ms", scrape_timeout: "200ms", evaluation_interval: "200ms" },
    rule_files: ruleFiles,
    scrape_configs: [{ job_name: "llm-proxy", static_configs: [{ targets: [target] }] }],
  };
  // JSON is YAML.
  await writeFile(join(folder, "prometheus.yml"), JSON.stringify(config));
  const port = await freePort();
  const child = spawn(
    "prometheus",
    [
      `--config.file=${join(folder, "prometheus.yml")}`,
      `--storage.tsdb.path=${join(folder, "data")}`,
      `--web.listen-address=127.0.0.1:${port}`,
      "--enable-feature=exemplar-storage",
      "--log.level=warn",
    ],
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  let errors = "";
  child.stderr.on("data", (bytes: Buffer) => (errors = (errors + bytes.toString()).slice(-2000)));
  onTestFinished(async () => {
    if (child.exitCode === null && child.signalCode === null) {
      const gone = once(child, "exit");
      child.kill("SIGKILL");
      await gone;
    }
    await rm(folder, { recursive: true, force: true });
  });
  const url = `http://127.0.0.1:${port}`;
  await eventually(async () => {
    expect(child.exitCode, errors).toBeNull();
    expect((await fetch(`${url}/-/ready`)).status).toBe(200);
  }, 25_000);
  return {
    async api(path) {
      return ((await (await fetch(`${url}/api/v1/${path}`)).json()) as { data: unknown }).data;
    },
  };
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
