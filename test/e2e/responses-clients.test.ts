import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { usedRequests } from "../support/quota.ts";
import { startProxy, type RunningProxy } from "../support/start-proxy.ts";

const run = promisify(execFile);
/** As tried; others may behave otherwise. */
const codexVersion = "0.169.0";
/** Downloads need the registry; CI always has it. */
const installMs = 240_000;

/** Whether a program could be installed into the folder. Where it can't, the tests are skipped, but not in CI. */
async function installed(file: string, args: readonly string[]): Promise<boolean> {
  try {
    await run(file, args, { timeout: installMs });
    return true;
  } catch (cause) {
    if (process.env.CI !== undefined) throw cause;
    return false;
  }
}

let folder: string;
let proxy: RunningProxy;
let token: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "clients-"));
  proxy = await startProxy();
  token = await proxy.login();
});

afterAll(async () => {
  await proxy.dispose();
  await rm(folder, { recursive: true, force: true });
});

describe("Codex", () => {
  let hasCodex = false;

  beforeAll(async () => {
    const codex = `@openai/codex@${codexVersion}`;
    hasCodex = await installed("npm", ["install", "--no-audit", "--no-fund", "--prefix", join(folder, "codex"), codex]);
    await mkdir(join(folder, "home"), { recursive: true });
    await mkdir(join(folder, "work"), { recursive: true });
    await writeFile(
      join(folder, "home", "config.toml"),
      `model_provider = "proxy"\n[model_providers.proxy]\nname = "proxy"\nbase_url = "${proxy.url}/v1"\nwire_api = "responses"\nenv_key = "PROXY_KEY"\n`,
    );
  }, installMs);

  /** Runs one turn; resolves with what it printed, whether or not it failed. */
  async function turn(model: string, prompt: string): Promise<string> {
    const args = ["exec", "--skip-git-repo-check", "--json", "-m", model, prompt];
    const child = run(join(folder, "codex", "node_modules", ".bin", "codex"), args, {
      cwd: join(folder, "work"),
      env: { ...process.env, CODEX_HOME: join(folder, "home"), PROXY_KEY: token },
      timeout: 90_000,
    });
    child.child.stdin?.end();
    return child.then(
      ({ stdout }) => stdout,
      (error: unknown) => String((error as { stdout?: string }).stdout),
    );
  }

  it("shows a streamed answer", { timeout: 120_000 }, async ({ skip }) => {
    if (!hasCodex) skip("Codex can't be installed here");
    const before = await usedRequests(proxy, token);
    expect(await turn("deepseek-flash", "Say hello.")).toContain("You said");
    expect(await usedRequests(proxy, token)).toBe(before + 1);
  });

  it("runs a tool and sends its output", { timeout: 120_000 }, async ({ skip }) => {
    if (!hasCodex) skip("Codex can't be installed here");
    expect(await turn("deepseek-flash", "What is the weather like?")).toContain("The tool returned:");
  });

  it("asks once where no provider can serve it", { timeout: 120_000 }, async ({ skip }) => {
    if (!hasCodex) skip("Codex can't be installed here");
    expect(await turn("sim-500", "Say hello.")).toContain("turn.failed");
    // The proxy has tried three times; Codex would try thirty times on its own.
    const requests = proxy.logLines.filter((line) => line.includes('"chat.finished"') && line.includes('"sim-500"'));
    expect(requests).toHaveLength(1);
  });
});

describe("OpenAI's SDK for Python", () => {
  let hasPython = false;
  const python = () => join(folder, "python", "bin", "python");

  beforeAll(async () => {
    hasPython =
      (await installed("python3", ["-m", "venv", join(folder, "python")])) &&
      (await installed(python(), ["-m", "pip", "install", "--quiet", "openai==3.57"]));
  }, installMs);

  it("creates, streams and learns of failures", { timeout: 60_000 }, async ({ skip }) => {
    if (!hasPython) skip("the SDK for Python can't be installed here");
    const script = `
import json, sys
from openai import OpenAI
client = OpenAI(base_url=sys.argv[1], api_key=sys.argv[2], max_retries=0)
whole = client.responses.create(model="deepseek-flash", input="Say hello.")
with client.responses.stream(model="deepseek-flash", input="Say hello.") as stream:
    types = [event.type for event in stream]
    final = stream.get_final_response()
with client.responses.stream(model="sim-truncate", input="Say hello.") as stream:
    broken = [event for event in stream][-1]
print(json.dumps([whole.output_text, final.output_text, types[0], types[-1], broken.type, broken.response.error.code]))
`;
    const { stdout } = await run(python(), ["-c", script, `${proxy.url}/v1`, token]);
    const [whole, final, ...types] = JSON.parse(stdout) as string[];
    expect(whole).toContain("You said");
    expect(final).toBe(whole);
    expect(types).toEqual(["response.created", "response.completed", "response.failed", "upstream_truncated"]);
  });
});
