import { createHash, createHmac, randomBytes } from "node:crypto";

/**
 * A refresh token, taken apart. The family stays the same as long as the session lives; the secret is another one after
 * every use. Whoever shows a family that exists has held a token of it, so a secret that is out of date means reuse,
 * and nobody can end a session by inventing tokens.
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

/** Makes a token of a new family. */
export function newRefreshToken(): RefreshToken {
  return { family: randomBytes(familyBytes), secret: randomBytes(secretBytes) };
}

/** The token as the client gets it: `dsr_` and 64 characters of base64url. */
export function refreshTokenText({ family, secret }: RefreshToken): string {
  return `dsr_${Buffer.concat([family, secret]).toString("base64url")}`;
}

/** Reads what a client has sent; undefined where it can't be a refresh token. */
export function parseRefreshToken(text: string): RefreshToken | undefined {
  const encoded = shape.exec(text)?.[1];
  if (encoded === undefined) return undefined;
  const bytes = Buffer.from(encoded, "base64url");
  return { family: bytes.subarray(0, familyBytes), secret: bytes.subarray(familyBytes) };
}

/** What is kept of a secret. SHA-256 without a salt is enough: nobody guesses 128 random bits. */
export function digestOf(secret: Uint8Array): string {
  return createHash("sha256").update(secret).digest("base64url");
}

/** A random salt, 256 bits in base64url. */
export function newSalt(): string {
  return randomBytes(secretBytes).toString("base64url");
}

/**
 * The secret that follows another one. It takes both to make it: a thief of the old secret lacks the salt, which never
 * leaves the proxy, and a thief of the file lacks the secret, of which it holds the digest alone. So whoever comes with
 * the old secret again can be given the same successor, even after a restart, without its being kept anywhere.
 */
export function successorOf(secret: Uint8Array, salt: string): Buffer {
  return createHmac("sha256", secret).update(Buffer.from(salt, "base64url")).digest();
}
