import type { Config } from "../config/schema.ts";
import type { Emit } from "../events/catalogue.ts";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import type { ApiKeys } from "./api-keys.ts";
import {
  type Authenticate,
  type AuthenticateCookie,
  createAuthenticate,
  createAuthenticateCookie,
} from "./authenticate.ts";
import { createPasswordChange, type PasswordChanges } from "./login/change-password.ts";
import { type CheckGuarded, createCheckGuarded, createLogin, type Logins } from "./login/login.ts";
import { createSecondFactors, type SecondFactors } from "./login/second-factor.ts";
import type { LoginGuard } from "./login-guard.ts";
import type { Passwords } from "./passwords/password.ts";
import type { Sessions } from "./sessions.ts";
import type { TokenKeys } from "./sessions/token-keys.ts";
import { createTokenPairs, type TokenPairs } from "./sessions/token-pairs.ts";
import { createTokens } from "./sessions/tokens.ts";
import type { Users } from "./users.ts";

/** The services that authenticate. */
export interface IdentityServices {
  readonly authenticate: Authenticate;
  readonly authenticateCookie: AuthenticateCookie;
  readonly loginService: LoginService;
  readonly secondFactors: SecondFactors;
  /** The check of a password that the login guard admits. */
  readonly checkGuarded: CheckGuarded;
}

/** The ways to get tokens, or the cookie of a browser. */
interface LoginService extends Logins, PasswordChanges {
  /** See Sessions.refresh. */
  readonly refresh: TokenPairs["refresh"];
}

export interface IdentityOptions {
  readonly users: Users;
  readonly sessions: Sessions;
  readonly apiKeys: ApiKeys;
  readonly loginGuard: LoginGuard;
  readonly passwords: Passwords;
  /** [auth] in force, which may change, except for issuer and audience. */
  readonly auth: () => Config["auth"];
  /** [security] in force. */
  readonly security: () => Config["security"];
  /** [panel] in force. */
  readonly panel: () => Config["panel"];
  /** The secrets of access tokens. */
  readonly tokenKeys: TokenKeys;
  readonly clock: Clock;
  readonly log: Log;
  readonly emit: Emit;
  readonly newId: () => string;
}

/** Creates the services over the ports. */
export function createIdentity(options: IdentityOptions): IdentityServices {
  const { auth, sessions, loginGuard, passwords, clock, newId } = options;
  const { issuer, audience } = auth();
  const tokens = createTokens({
    keys: options.tokenKeys,
    issuer,
    audience,
    clock,
    newId,
    get lifeSeconds() {
      return auth().access_token_seconds;
    },
  });
  const pairs = createTokenPairs(sessions, (account, sessionId) => tokens.issue(account, sessionId));
  const guarded = createCheckGuarded(loginGuard, passwords);
  const secondFactors = createSecondFactors(options);
  return {
    authenticate: createAuthenticate({ ...options, tokens }),
    secondFactors,
    checkGuarded: guarded,
    authenticateCookie: createAuthenticateCookie({ ...options, lifeSeconds: () => options.panel().session_seconds }),
    loginService: {
      ...createLogin({
        ...options,
        guarded,
        pairs,
        secondFactors,
        reuseSeconds: () => auth().login_reuse_seconds,
        passwordLogin: () => options.security().password_login,
      }),
      ...createPasswordChange({ ...options, guarded, pairs }),
      refresh: (refreshToken, origin) => pairs.refresh(refreshToken, origin),
    },
  };
}
