import { z } from "zod";
import { AppError } from "../../errors.ts";
import { isUserName } from "../user-name.ts";
import type { Account } from "../account-schema.ts";

const claimsSchema = z.strictObject({
  sub: z.string().refine(isUserName),
  iss: z.string(),
  aud: z.string(),
  /** s since the epoch, like iat and nbf. */
  exp: z.int(),
  iat: z.int(),
  nbf: z.int().optional(),
  jti: z.string().min(1).max(64),
  /** The account's token_version at the time of the login. */
  ver: z.int().min(0),
  /** The session of the token; the token ends with it. */
  sid: z.string().min(1).max(64),
});

/** A signed access token and its expiry in ms since the epoch. */
export interface IssuedToken {
  readonly token: string;
  readonly expiresAt: number;
}

/** The claims of an access token. Times are in s since the epoch. */
export type AccessClaims = Readonly<z.infer<typeof claimsSchema>>;

export interface NewClaimsOptions {
  readonly issuer: string;
  readonly audience: string;
  /** ms since the epoch. */
  readonly now: number;
  readonly lifeSeconds: number;
  /** Unique for every token. */
  readonly id: string;
  readonly sessionId: string;
}

/** The claims of a new access token of this account. */
export function newClaims(account: Account, options: NewClaimsOptions): AccessClaims {
  const iat = Math.floor(options.now / 1000);
  return {
    sub: account.username,
    iss: options.issuer,
    aud: options.audience,
    exp: iat + options.lifeSeconds,
    iat,
    jti: options.id,
    ver: account.token_version,
    sid: options.sessionId,
  };
}

export interface CheckClaimsOptions {
  readonly issuer: string;
  readonly audience: string;
  /** ms since the epoch. */
  readonly now: number;
}

/**
 * Checks a token's claims, after its signature has been verified. Every claim must be present and of its type: a token
 * without exp would live forever, and one with a string for it was not made here.
 *
 * @throws AppError `token_expired` if only the time is wrong, `invalid_token` otherwise
 */
export function checkClaims(decoded: unknown, options: CheckClaimsOptions): AccessClaims {
  const { success, data } = claimsSchema.safeParse(decoded);
  if (!success || data.iss !== options.issuer || data.aud !== options.audience) throw new AppError("invalid_token");
  // A future iat is accepted: after the clock has stepped back, valid tokens have one.
  if (data.nbf !== undefined && data.nbf * 1000 > options.now) throw new AppError("invalid_token");
  if (data.exp * 1000 <= options.now) throw new AppError("token_expired");
  return data;
}
