import { resolve } from "node:path";
import { followFile, type FileOutcome, type FollowedFile, readSmallFile } from "../lib/files/followed-file.ts";
import type { Log } from "../lib/log.ts";
import type { KeyFileStatus } from "./key-file-status.ts";
import { ConfigError, type Env } from "./load.ts";
import type { ProviderConfig } from "./schema.ts";

/** Where a kind of provider has its key, if the config doesn't say. */
export interface KeyDefaults {
  /** The environment variable; null if it needs no key. */
  readonly defaultKeyEnv: string | null;
  /** Whether it may need no key if the config gives it a base URL. */
  readonly mayBeKeyless: boolean;
}

/**
 * Finds a provider's API keys: in its configured file or variables, else in its kind's variable. A variable may contain
 * several, separated by commas.
 * @param folder the folder for a relative api_key_file
 * @returns the keys, without duplicates; [""] for a provider that needs none; [] if its key is missing
 * @throws ConfigError if a configured file can't be read or is empty, or if a key contains characters that a header
 * can't
 */
export function findProviderKeys(
  provider: ProviderConfig,
  { defaultKeyEnv, mayBeKeyless }: KeyDefaults,
  env: Env,
  folder: string,
): readonly string[] {
  if (defaultKeyEnv === null) return [provider.kind];
  if (provider.api_key_file !== undefined) {
    const file = resolve(folder, provider.api_key_file);
    return [keyIn(readKeyFile(provider, file), provider, file)];
  }
  const named = [provider.api_keys_env ?? provider.api_key_env ?? []].flat();
  const keys = (named.length > 0 ? named : [defaultKeyEnv]).flatMap((name) => readVariable(name, env));
  if (keys.length > 0) return [...new Set(keys)];
  const needsNone = mayBeKeyless && provider.base_url !== undefined && named.length === 0;
  return needsNone ? [""] : [];
}

/** The key files of all providers, watched while the proxy runs. */
export interface KeyFiles {
  /** Reads a provider's key file now, if it has one; absent: all providers' files. */
  check(provider?: string): void;
  /** Watches the files of these providers from now on, instead of those before. */
  follow(providers: readonly ProviderConfig[]): void;
  close(): void;
}

/**
 * Reads api_key_file again whenever it changes, once `follow` has named the providers.
 * @param options `use`: called with the keys in force from now on
 */
export function followKeyFiles(options: {
  /** The folder for a relative api_key_file. */
  readonly folder: string;
  readonly use: (provider: string, keys: readonly string[]) => void;
  readonly status: Pick<KeyFileStatus, "update" | "forget">;
  readonly log: Log;
}): KeyFiles {
  const files = new Map<string, { readonly path: string; readonly file: FollowedFile }>();

  function start(provider: ProviderConfig, path: string): void {
    const onText = (text: string): void => {
      options.use(provider.name, [keyIn(text, provider, path)]);
    };
    const onOutcome = (outcome: FileOutcome): void => {
      options.status.update(pathInConfig(provider.name), outcome);
    };
    files.set(provider.name, { path, file: followFile({ path, onText, onOutcome, log: options.log }) });
  }

  function stop(name: string): void {
    files.get(name)?.file.close();
    files.delete(name);
    options.status.forget(pathInConfig(name));
  }

  return {
    check(provider) {
      for (const [name, { file }] of files) if (provider === undefined || provider === name) file.check();
    },
    follow(providers) {
      const pathOf = ({ api_key_file: path }: ProviderConfig) => path && resolve(options.folder, path);
      const wanted = new Map(providers.map((provider) => [provider.name, pathOf(provider)]));
      for (const [name, { path }] of files) if (wanted.get(name) !== path) stop(name);
      for (const provider of providers) {
        const path = pathOf(provider);
        if (path !== undefined && !files.has(provider.name)) start(provider, path);
      }
    },
    close() {
      for (const name of files.keys()) stop(name);
    },
  };
}

function pathInConfig(provider: string): string {
  return `providers.${provider}.api_key_file`;
}

function readVariable(name: string, env: Env): readonly string[] {
  const keys = (env[name] ?? "").split(",").map((key) => key.trim());
  return keys.filter((key) => key !== "").map((key) => checkKey(key, `environment ${name}`));
}

function readKeyFile(provider: ProviderConfig, file: string): string {
  try {
    return readSmallFile(file).toString("utf8");
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new ConfigError(`providers.${provider.name}.api_key_file: ${file} cannot be read: ${message}`, { cause });
  }
}

function keyIn(text: string, provider: ProviderConfig, file: string): string {
  const key = text.trim();
  if (key === "") throw new ConfigError(`providers.${provider.name}.api_key_file: ${file} is empty`);
  return checkKey(key, `providers.${provider.name}.api_key_file: ${file}`);
}

/**
 * Several keys in a file, or a key with a word around it, are reported at the start and not by every request. Never
 * repeats the key.
 */
function checkKey(key: string, where: string): string {
  if (/^[\x21-\x7e]+$/.test(key)) return key;
  throw new ConfigError(`${where}: expected one API key, without blanks, line breaks and letters beyond ASCII`);
}
