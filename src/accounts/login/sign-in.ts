import { createPasswordChange, type PasswordChange, type PasswordChangeOptions } from "./change-password.ts";
import type { Account } from "../account-schema.ts";
import type { IssuedToken } from "../sessions/claims.ts";
import { createLogin, type LoginOptions, type LoginRequest } from "./login.ts";
import type { Sessions } from "../sessions/sessions.ts";
import { createTokenPairs, type TokenPair, type TokenPairs } from "../sessions/token-pairs.ts";

/** The three ways to tokens. */
export interface SignIn {
  /** See createLogin. */
  login(request: LoginRequest): Promise<TokenPair>;
  /** See Sessions.refresh. */
  readonly refresh: TokenPairs["refresh"];
  /** See createPasswordChange. */
  changePassword(change: PasswordChange): Promise<TokenPair>;
}

type SignInOptions = Omit<LoginOptions & PasswordChangeOptions, "pairs" | "sessions"> & {
  readonly sessions: Sessions;
};

/** @param issueToken signs an access token of a session */
export function createSignIn(
  options: SignInOptions,
  issueToken: (account: Account, sessionId: string) => IssuedToken,
): SignIn {
  const pairs = createTokenPairs(options.sessions, issueToken);
  return {
    login: createLogin({ ...options, pairs }),
    refresh: (refreshToken, origin) => pairs.refresh(refreshToken, origin),
    changePassword: createPasswordChange({ ...options, pairs }),
  };
}
