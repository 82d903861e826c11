import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { promisify } from "node:util";
import { afterEach, expect, it } from "vitest";
import { alicePassword, startProxy, type RunningProxy } from "../support/start-proxy.ts";

const run = promisify(execFile);
const docs = readFileSync(new URL("../../docs/clients.md", import.meta.url), "utf8");
let proxy: RunningProxy | undefined;

afterEach(async () => {
  await proxy?.dispose();
  proxy = undefined;
});

it("the lines for curl in docs/clients.md log in, stream and refresh", async () => {
  const [, section = ""] = docs.split("\n## curl\n");
  const [, lines = ""] = section.split("```sh\n");
  const [script = ""] = lines.split("```\n");
  proxy = await startProxy();
  const { stdout } = await run("bash", ["-euo", "pipefail", "-c", script.replace("…", alicePassword)], {
    env: { PATH: process.env.PATH ?? "", PROXY: proxy.url },
  });
  expect(stdout).toMatch(/^data: \{/);
  expect(stdout).toContain("\ndata: [DONE]\n");
  expect(stdout.match(/"access_token"/g)).toHaveLength(1);
});
