/**
 * Recognizable secrets inside a text: bearer headers, API keys, JWTs, passwords in URLs. Some of these texts are chosen
 * by clients and providers, so a JWT is only matched at the beginning of a word, and a URL's user name ends at the
 * first colon.
 */
const secretText =
  /\bBearer\s+[^\s"',;]+|\b(?:sk|ds[prs])[-_][\w-]{8,}|(?<![\w-])(?=[\w-]*\beyJ)[\w-]+\.[\w-]+(?:\.[\w-]*)?|(?<=:\/\/)[^\s/@:]*:[^\s/@]*(?=@)/g;

/** Replaces text that looks like a secret with "[redacted]". */
export function scrubSecrets(text: string): string {
  return text.replace(secretText, "[redacted]");
}

/** Key names whose values are secrets, in any case and style. Not the plural `tokens`, which is the billed unit. */
const secretKey =
  /authorization|cookie|passw(?:or)?d|passphrase|secret|credential|api[-_]?key|private[-_]?key|(?:^|[-_])token$/i;
const secretCamelKey = /[a-z]Token$/;

/** Whether a value under this key is a secret, judging by the key's name. */
export function isSecretKey(key: string): boolean {
  return secretKey.test(key) || secretCamelKey.test(key);
}
