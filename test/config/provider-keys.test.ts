import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ConfigError, parseConfig, type Env } from "../../src/config/load.ts";
import { providerKinds } from "../../src/providers/kinds/kinds.ts";
import { findProviderKeys } from "../../src/config/provider-keys.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "keys-"));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

function keysOf(kind: string, lines = "", env: Env = {}): readonly string[] {
  const toml = `[[providers]]\nname = "main"\nkind = "${kind}"\nmodels = ["*"]\n${lines}`;
  const [provider] = parseConfig(toml, "x").providers;
  if (provider === undefined) throw new Error("no provider");
  return findProviderKeys(provider, providerKinds[provider.kind], env, folder);
}

describe("a provider's key", () => {
  it.each([
    ["deepseek", "DEEPSEEK_API_KEY"],
    ["zhipu", "ZHIPU_API_KEY"],
    ["openai", "OPENAI_API_KEY"],
  ])("of kind %s is in %s", (kind, name) => {
    expect(keysOf(kind, "", { [name]: " sk-1\n" })).toEqual(["sk-1"]);
    expect(keysOf(kind, "", { [name]: " " })).toEqual([]);
    expect(keysOf(kind)).toEqual([]);
  });

  it("is in the variable that the provider names, and then nowhere else", () => {
    const env = { DEEPSEEK_API_KEY: "sk-default", MY_KEY: "sk-mine" };
    expect(keysOf("deepseek", 'api_key_env = "MY_KEY"', env)).toEqual(["sk-mine"]);
    expect(keysOf("deepseek", 'api_key_env = "OTHER_KEY"', env)).toEqual([]);
  });

  it("may be several, in one variable with commas or in several, each counted once", () => {
    const env = { DEEPSEEK_API_KEY: " sk-1, sk-2,,sk-1 ", A: "sk-a", B: "sk-b,sk-a" };
    expect(keysOf("deepseek", "", env)).toEqual(["sk-1", "sk-2"]);
    expect(keysOf("deepseek", 'api_keys_env = ["A", "GONE", "B"]', env)).toEqual(["sk-a", "sk-b"]);
    expect(keysOf("deepseek", 'api_keys_env = ["GONE"]', env)).toEqual([]);
  });

  it("is in the file that the provider names, relative to the config's folder", () => {
    writeFileSync(join(folder, "key"), "sk-file\n");
    expect(keysOf("deepseek", 'api_key_file = "key"', { DEEPSEEK_API_KEY: "sk-env" })).toEqual(["sk-file"]);
  });

  it("may be missing for a server of one's own", () => {
    const url = 'base_url = "http://127.0.0.1:11434/v1"\n';
    expect(keysOf("openai", url)).toEqual([""]);
    expect(keysOf("openai", `${url}api_key_env = "GONE"`)).toEqual([]);
  });

  it("is not needed by the simulator", () => {
    expect(keysOf("simulator")).toEqual(["simulator"]);
  });

  it.each([
    ["", "is empty"],
    ["sk-one\nsk-two\n", "expected one API key"],
    ["sk-µ", "expected one API key"],
  ])("is refused at start where the file holds %j, and never repeated", (content, message) => {
    writeFileSync(join(folder, "key"), content);
    let refusal: unknown;
    try {
      keysOf("deepseek", 'api_key_file = "key"');
    } catch (error) {
      refusal = error;
    }
    expect(refusal).toBeInstanceOf(ConfigError);
    expect((refusal as ConfigError).message).toMatch(/^providers\.main\.api_key_file: /);
    expect((refusal as ConfigError).message).toContain(message);
    expect((refusal as ConfigError).message).not.toContain("sk-");
  });

  it("is refused in a variable too", () => {
    expect(() => keysOf("deepseek", "", { DEEPSEEK_API_KEY: "Bearer sk-1" })).toThrow(
      "environment DEEPSEEK_API_KEY: expected one API key",
    );
  });

  it("is an error where its file is not there", () => {
    expect(() => keysOf("deepseek", 'api_key_file = "gone"')).toThrow(
      /^providers\.main\.api_key_file: .*cannot be read/,
    );
    expect(() => keysOf("deepseek", 'api_key_file = "/dev/null"')).toThrow(/cannot be read: .*is not a plain file/);
  });
});
