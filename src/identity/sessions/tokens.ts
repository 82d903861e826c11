import { createDecoder, createSigner, createVerifier } from "fast-jwt";
import { AppError } from "../../errors.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Account } from "../account-schema.ts";
import { checkClaims, newClaims, type AccessClaims, type IssuedToken } from "./claims.ts";
import type { TokenKeys } from "./token-keys.ts";

export interface TokensOptions {
  /** Read at every use: they may change. */
  readonly keys: TokenKeys;
  readonly issuer: string;
  readonly audience: string;
  /** Lifetime of a token. Read at every use. */
  readonly lifeSeconds: number;
  readonly clock: Clock;
  readonly newId: () => string;
}

/** Access tokens: signed by the first key, verified by all. */
export interface Tokens {
  issue(account: Account, sessionId: string): IssuedToken;
  /** Checks signature and times. Throws AppError invalid_token or token_expired (401). */
  verify(token: string): AccessClaims;
}

/** Size of the cache of verified tokens: an HMAC per request would cost more than the rest of the check. */
const remembered = 10_000;
/** Longer than any token of ours; longer input is refused unread. */
const maxTokenLength = 4096;

/** JWT with HS256 only. Other algorithms, unknown kids, critical headers and invalid claims are all 401. */
export function createTokens(options: TokensOptions): Tokens {
  const { keys, issuer, audience, clock } = options;
  const readHeader = createDecoder({ complete: true }) as (token: string) => { readonly header?: unknown } | null;
  const verified = new Map<string, AccessClaims>();
  /** The keys by which the cached tokens were verified. */
  let verifiedBy = keys.byKid;

  function decode(token: string): AccessClaims {
    const key = keys.byKid.get(kidOf(readHeader(token)?.header));
    if (key === undefined) throw new AppError("invalid_token");
    // checkClaims checks the times, with the injected clock.
    const verify = createVerifier({ key, algorithms: ["HS256"], ignoreExpiration: true, ignoreNotBefore: true });
    return checkClaims(verify(token), { issuer, audience, now: clock.now() });
  }

  return {
    issue(account, sessionId) {
      const claims = newClaims(account, {
        issuer,
        audience,
        now: clock.now(),
        lifeSeconds: options.lifeSeconds,
        id: options.newId(),
        sessionId,
      });
      const { kid, secret: key } = keys.signing;
      const token = createSigner({ algorithm: "HS256", kid, key })(claims);
      return { token, expiresAt: claims.exp * 1000 };
    },
    verify(token) {
      if (verifiedBy !== keys.byKid) {
        verified.clear();
        verifiedBy = keys.byKid;
      }
      const known = verified.get(token);
      if (known !== undefined) {
        if (known.exp * 1000 > clock.now()) return known;
        verified.delete(token);
        throw new AppError("token_expired");
      }
      if (token.length > maxTokenLength || !isCanonical(token)) throw new AppError("invalid_token");
      const claims = decodeOrRefuse(decode, token);
      if (verified.size >= remembered) forgetOldest(verified);
      verified.set(token, claims);
      return claims;
    },
  };
}

/**
 * Whether each part is canonical base64url. Decoders ignore odd characters and bits, so one token would have many
 * texts.
 */
function isCanonical(token: string): boolean {
  return token.split(".").every((part) => Buffer.from(part, "base64url").toString("base64url") === part);
}

/** The library throws many kinds of errors, some for unexpected input. All mean the same. */
function decodeOrRefuse(decode: (token: string) => AccessClaims, token: string): AccessClaims {
  try {
    return decode(token);
  } catch (cause) {
    throw cause instanceof AppError ? cause : new AppError("invalid_token", { cause });
  }
}

function kidOf(header: unknown): string {
  if (typeof header !== "object" || header === null || "crit" in header) return "";
  return "kid" in header && typeof header.kid === "string" ? header.kid : "";
}

function forgetOldest(map: Map<string, unknown>): void {
  for (const key of map.keys()) {
    map.delete(key);
    return;
  }
}
