import { resolve } from "node:path";
import { readSmallFile } from "../lib/files/followed-file.ts";
import { ConfigError, type Env } from "./load.ts";
import type { OidcIssuerConfig } from "./schema.ts";

/**
 * The client secret of an issuer; undefined if it needs none. A file is read at every call, so that a new secret is in
 * use with the next login.
 *
 * @param folder the folder for a relative client_secret_file
 * @throws ConfigError if the variable or the file is missing, empty, or no single line of text; never with the secret
 */
export function readClientSecret(
  { name, client_secret_env: variable, client_secret_file: file }: OidcIssuerConfig,
  env: Env,
  folder: string,
): string | undefined {
  if (variable !== undefined) return secretIn(env[variable] ?? "", `oidc.${name}.client_secret_env: ${variable}`);
  if (file === undefined) return undefined;
  const path = resolve(folder, file);
  const where = `oidc.${name}.client_secret_file: ${path}`;
  let text: string;
  try {
    text = readSmallFile(path).toString("utf8");
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new ConfigError(`${where} cannot be read: ${message}`, { cause });
  }
  return secretIn(text, where);
}

function secretIn(text: string, where: string): string {
  const secret = text.trim();
  if (secret === "") throw new ConfigError(`${where} is empty`);
  if (secret.length <= 4096 && /^[\x20-\x7e]+$/.test(secret)) return secret;
  throw new ConfigError(`${where}: expected one line of ASCII, at most 4096 characters`);
}
