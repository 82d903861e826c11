import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { ConfigError, type Env } from "./load.ts";
import type { ProviderConfig } from "./schema.ts";

/** Where each kind's key is expected where the provider names no place. */
const defaultEnv: Readonly<Record<ProviderConfig["kind"], string>> = {
  deepseek: "DEEPSEEK_API_KEY",
  zhipu: "ZHIPU_API_KEY",
  openai: "OPENAI_API_KEY",
  simulator: "",
};

/**
 * Finds a provider's API key: in the file or the variable that it names, else in its kind's variable.
 * @param folder what api_key_file is relative to
 * @returns the key; "" for one that needs none; null where it is missing and the provider can't be used
 * @throws ConfigError where a named file can't be read or is empty, and where a key holds what no header can carry
 */
export function findProviderKey(provider: ProviderConfig, env: Env, folder: string): string | null {
  if (provider.kind === "simulator") return "simulator";
  if (provider.api_key_file !== undefined) return readKeyFile(provider, resolve(folder, provider.api_key_file));
  const name = provider.api_key_env ?? defaultEnv[provider.kind];
  const key = env[name]?.trim() ?? "";
  if (key !== "") return checkKey(key, `environment ${name}`);
  // A server of one's own (vLLM, Ollama, llama.cpp) often wants no key.
  const needsNone = provider.kind === "openai" && provider.base_url !== undefined && provider.api_key_env === undefined;
  return needsNone ? "" : null;
}

function readKeyFile(provider: ProviderConfig, file: string): string {
  let key: string;
  try {
    key = readFileSync(file, "utf8").trim();
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new ConfigError(`providers.${provider.name}.api_key_file: ${file} cannot be read: ${message}`, { cause });
  }
  if (key === "") throw new ConfigError(`providers.${provider.name}.api_key_file: ${file} is empty`);
  return checkKey(key, `providers.${provider.name}.api_key_file: ${file}`);
}

/** Two keys in a file, or or a word around it, are told at start and not by every request. Never repeats it. */
function checkKey(key: string, where: string): string {
  if (/^[\x21-\x7e]+$/.test(key)) return key;
  throw new ConfigError(`${where}: expected one API key, without blanks, line breaks and letters beyond ASCII`);
}
