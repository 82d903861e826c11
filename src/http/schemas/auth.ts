import { z } from "zod";
import type { TokenPair } from "../../identity/sessions/token-pairs.ts";

const refreshToken = z.string().max(200).describe("The refresh token of the latest response.");

export const refreshBody = z.object({ refresh_token: refreshToken });

export const loginBody = z.object({
  username: z.string().max(1024),
  // Longer than any password: those are measured in bytes, by the password check itself.
  password: z.string().max(4096),
  otp: z.string().max(64).optional().describe("A code of the second factor, or a recovery code, if the user has one."),
});

export const passwordBody = z.object({
  current_password: z.string().max(4096),
  new_password: z.string().max(4096).describe("8 to 1024 bytes, and not a common password."),
});

/** A pair of tokens. */
export const tokenResponse = z.object({
  token: z.string().describe("The access token."),
  access_token: z.string().describe("The same, under OAuth's name."),
  token_type: z.literal("Bearer"),
  expires_in: z.int().describe("Seconds."),
  refresh_token: z.string().describe("Valid for one POST /auth/refresh."),
  refresh_expires_in: z.int().describe("Seconds until it expires if it isn't used."),
  password_change_required: z
    .literal(true)
    .optional()
    .describe(
      "The password is a one-time password: everything else is refused until POST /auth/password has replaced it.",
    ),
});

/** @param now ms since the epoch */
export function toTokenResponse(pair: TokenPair, now: number): z.input<typeof tokenResponse> {
  const seconds = (end: number): number => Math.max(0, Math.floor((end - now) / 1000));
  return {
    token: pair.token,
    access_token: pair.token,
    token_type: "Bearer",
    expires_in: seconds(pair.expiresAt),
    refresh_token: pair.refreshToken,
    refresh_expires_in: seconds(pair.refreshExpiresAt),
    ...(pair.account.must_change_password === true ? { password_change_required: true } : {}),
  };
}
