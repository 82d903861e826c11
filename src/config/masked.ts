import { isSecretKey, scrubSecrets } from "../lib/secret-text.ts";

const mask = "***";

/** Names of variables and files are shown, although their keys sound secret: the secret is what they name. */
const namesOnly = /_(?:env|file)$/;

/**
 * The config as administrators see it. Secrets have no place in it, but URLs can contain them: user names, passwords
 * and queries are masked in all URLs, and the path too in the webhook's, where it is the credential. So is text that
 * looks like a secret.
 */
export function maskConfig(config: object): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(config).map(([key, value]) => [scrubSecrets(key), maskValue(key, value)]));
}

/** A value of the config without secrets, as in maskConfig. */
export function maskValue(key: string, value: unknown): unknown {
  if (typeof value === "string") {
    if (isSecretKey(key) && !namesOnly.test(key)) return mask;
    return scrubSecrets(maskUrl(value, key === "webhook_url"));
  }
  if (Array.isArray(value)) return value.map((inner) => maskValue(key, inner));
  return isTable(value) ? maskConfig(value) : value;
}

function maskUrl(text: string, hidePath: boolean): string {
  if (!/^https?:/i.test(text) || !URL.canParse(text)) return text;
  const url = new URL(text);
  const user = url.username === "" && url.password === "" ? "" : `${mask}@`;
  const path = hidePath && url.pathname !== "/" ? `/${mask}` : url.pathname;
  const rest = url.search === "" && url.hash === "" ? "" : `?${mask}`;
  return `${url.protocol}//${user}${url.host}${path}${rest}`;
}

/** Whether a value is a table of TOML. Dates are not. */
export function isTable(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}
