import { createHash, createHmac, randomBytes } from "node:crypto";

/**
 * A parsed refresh token. The family stays the same for the life of the session; the secret changes with every use. A
 * client that presents an existing family has held a token of it, so an outdated secret means reuse, and nobody can end
 * a session by making up tokens.
 */
export interface RefreshToken {
  /** 128 bits. */
  readonly family: Buffer;
  /** 256 bits. */
  readonly secret: Buffer;
}

const familyBytes = 16;
const secretBytes = 32;
const shape = /^dsr_([A-Za-z0-9_-]{64})$/;

/** Creates a token of a new family. */
export function newRefreshToken(): RefreshToken {
  return { family: randomBytes(familyBytes), secret: randomBytes(secretBytes) };
}

/** The token as the client gets it: `dsr_` and 64 characters of base64url. */
export function refreshTokenText({ family, secret }: RefreshToken): string {
  return `dsr_${Buffer.concat([family, secret]).toString("base64url")}`;
}

/** Parses a token from a client; undefined if it can't be a refresh token. */
export function parseRefreshToken(text: string): RefreshToken | undefined {
  const encoded = shape.exec(text)?.[1];
  if (encoded === undefined) return undefined;
  const bytes = Buffer.from(encoded, "base64url");
  return { family: bytes.subarray(0, familyBytes), secret: bytes.subarray(familyBytes) };
}

/** A cookie as the browser gets it: `dsc_` and 64 characters of base64url. */
export function cookieText({ family, secret }: RefreshToken): string {
  return `dsc_${Buffer.concat([family, secret]).toString("base64url")}`;
}

/** Parses a cookie from a browser; undefined if it can't be one of ours. */
export function parseCookie(text: string): RefreshToken | undefined {
  return text.startsWith("dsc_") ? parseRefreshToken(`dsr_${text.slice(4)}`) : undefined;
}

/**
 * The stored digest of a cookie's secret. It is no digest of anything that has the length of a refresh token's secret: a
 * cookie can't be exchanged for tokens, and trying that ends its session.
 */
export function cookieDigestOf(secret: Uint8Array): string {
  return createHash("sha256").update("cookie ").update(secret).digest("base64url");
}

/** The stored digest of a secret. SHA-256 without a salt is enough: random bits can't be guessed. */
export function digestOf(secret: Uint8Array): string {
  return createHash("sha256").update(secret).digest("base64url");
}

/** A random salt, 256 bits in base64url. */
export function newSalt(): string {
  return randomBytes(secretBytes).toString("base64url");
}

/**
 * The secret that follows another one. Deriving it takes both secret and salt: a thief of the old secret lacks the
 * salt, which never leaves the proxy, and a thief of the file lacks the secret, since the file has only its digest. A
 * client that presents the old secret again can therefore get the same successor, even after a restart, without its
 * being stored anywhere.
 */
export function successorOf(secret: Uint8Array, salt: string): Buffer {
  return createHmac("sha256", secret).update(Buffer.from(salt, "base64url")).digest();
}
