/**
 * Secrets that give themselves away inside a text: bearer headers, API keys, JWTs, passwords in URLs. Clients and
 * providers choose some of these texts, so a JWT is looked for only at the beginning of a word, and a URL's name ends at
 * the first colon.
 */
const secretText =
  /\bBearer\s+[^\s"',;]+|\b(?:sk|ds[prs])[-_][\w-]{8,}|(?<![\w-])(?=[\w-]*\beyJ)[\w-]+\.[\w-]+(?:\.[\w-]*)?|(?<=:\/\/)[^\s/@:]*:[^\s/@]*(?=@)/g;

/** Replaces what looks like a secret by "[redacted]". */
export function scrubSecrets(text: string): string {
  return text.replace(secretText, "[redacted]");
}

/** Key names whose values are secrets, in any case and style. Not the plural `tokens`, which are what is billed. */
const secretKey =
  /authorization|cookie|passw(?:or)?d|passphrase|secret|credential|api[-_]?key|private[-_]?key|(?:^|[-_])token$/i;
const secretCamelKey = /[a-z]Token$/;

/** Whether a value under this key is a secret by its name. */
export function isSecretKey(key: string): boolean {
  return secretKey.test(key) || secretCamelKey.test(key);
}
