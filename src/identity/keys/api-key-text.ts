import { createHash, createHmac, randomBytes } from "node:crypto";
import { crc32 } from "node:zlib";

const prefix = "dsp_";
const secretPrefix = "dss_";
const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/** 62^43 is a little more than 2^256. */
const bodyLength = 43;
/** 62^6 is more than 2^32. */
const checksumLength = 6;
const shape = /^dsp_[0-9A-Za-z]{49}$/;

/** Creates a key: `dsp_`, 256 random bits in base62, and their CRC-32 in base62. A double click selects all of it. */
export function newApiKeyText(): string {
  const body = base62(BigInt(`0x${randomBytes(32).toString("hex")}`), bodyLength);
  return prefix + body + checksumOf(body);
}

/** Whether a credential looks like an API key rather than an access token. */
export function looksLikeApiKey(text: string): boolean {
  return text.startsWith(prefix);
}

/**
 * Whether the key's checksum is correct: distinguishes a mistyped or truncated key from an unknown one without a
 * lookup.
 */
export function isWholeApiKey(text: string): boolean {
  if (!shape.test(text)) return false;
  const end = prefix.length + bodyLength;
  return checksumOf(text.slice(prefix.length, end)) === text.slice(end);
}

/** The stored digest of a key. SHA-256 without a salt is enough: 256 random bits can't be guessed. */
export function apiKeyHash(text: string): string {
  return createHash("sha256").update(text).digest("base64url");
}

/**
 * The secret that signs the requests of a key. Deriving it takes both the key and the salt: an attacker who sees the
 * key in a header lacks the salt, which is never shown, and one who reads the file lacks the key, since the file has
 * only its hash.
 *
 * @param salt 256 random bits in base64url
 */
export function signingSecretOf(apiKey: string, salt: string): string {
  const secret = createHmac("sha256", apiKey).update(Buffer.from(salt, "base64url")).digest("hex");
  return secretPrefix + base62(BigInt(`0x${secret}`), bodyLength);
}

function checksumOf(body: string): string {
  return base62(BigInt(crc32(body)), checksumLength);
}

function base62(value: bigint, length: number): string {
  let text = "";
  for (let rest = value; text.length < length; rest /= 62n) text = (digits[Number(rest % 62n)] ?? "") + text;
  return text;
}
