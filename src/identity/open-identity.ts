import { createAuthenticate, type Identity } from "./authenticate.ts";
import type { Account } from "./account-schema.ts";
import type { Config } from "../config/schema.ts";
import type { Emit } from "../events/types.ts";
import { type AccountStore, createAccountStore } from "./files/account-store.ts";
import { type ApiKeys, openApiKeys } from "./keys/api-keys.ts";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import { createPasswordChange, type PasswordChange, type PasswordChangeOptions } from "./login/change-password.ts";
import { type LoginGuard, openLoginGuard } from "./login/login-guard.ts";
import { createGuardedPasswords, createLogin, type LoginOptions, type LoginRequest } from "./login/login.ts";
import { createPasswords } from "./passwords/password.ts";
import type { IssuedToken } from "./sessions/claims.ts";
import { openSessions, type Sessions } from "./sessions/sessions.ts";
import type { TokenKeys } from "./sessions/token-keys.ts";
import { createTokenPairs, type TokenPair, type TokenPairs } from "./sessions/token-pairs.ts";
import { createTokens } from "./sessions/tokens.ts";

/** Accounts, sessions and API keys, and the services that authenticate with them. */
export interface IdentityServices {
  readonly accounts: AccountStore;
  readonly sessions: Sessions;
  readonly apiKeys: ApiKeys;
  readonly loginGuard: LoginGuard;
  /** Issues tokens. */
  readonly loginService: LoginService;
  /** See createAuthenticate. */
  readonly authenticate: (credential: string, ip: string) => Identity;
}

export interface OpenIdentityOptions {
  readonly usersDir: string;
  /** [auth] in force, which may change except for issuer, audience and the numbers of hashes and waiting logins. */
  readonly auth: () => Config["auth"];
  /** [security] in force, which may change. */
  readonly security: () => Config["security"];
  /** The tiers of config.toml now. */
  readonly tierNames: () => readonly string[];
  /** The secrets of access tokens. */
  readonly tokenKeys: TokenKeys;
  readonly clock: Clock;
  readonly log: Log;
  readonly emit: Emit;
  readonly newId: () => string;
  /** Called for each resource to close, in the order of opening. */
  readonly onOpen: (close: () => Promise<void>) => void;
}

/** Opens accounts, sessions and API keys in the users folder. */
export async function openIdentity(options: OpenIdentityOptions): Promise<IdentityServices> {
  const { usersDir, auth, security, tierNames, clock, log, emit, newId, onOpen } = options;
  const passwords = await createPasswords({ maxHashes: auth().max_hashes, maxWaiting: auth().max_waiting_logins });
  const hashPassword = (password: string) => passwords.hash(password);
  const accounts = await createAccountStore({ usersDir, clock, log, tierNames, hashPassword });
  onOpen(() => accounts.close());
  const findAccount = (name: string): Account | undefined => accounts.get(name);
  const sessions = await openSessions({
    usersDir,
    clock,
    log,
    emit,
    newId,
    findAccount,
    get sessionSeconds() {
      return auth().session_seconds;
    },
    get idleSeconds() {
      return auth().refresh_token_seconds;
    },
    get leewaySeconds() {
      return auth().refresh_leeway_seconds;
    },
    get maxSessions() {
      return auth().max_sessions;
    },
  });
  onOpen(() => sessions.close());
  const apiKeys = await openApiKeys({ usersDir, clock, log, newId, findAccount });
  onOpen(() => apiKeys.close());

  const hasAccount = (name: string): boolean => accounts.get(name) !== undefined;
  const loginGuard = openLoginGuard(security, { hasAccount, clock, emit });
  // Even after a restart, users can log in from their known addresses while others guess their passwords.
  for (const user of accounts.names()) {
    for (const { ip } of [...sessions.list(user)].reverse()) loginGuard.remember(user, ip);
  }
  const guarded = createGuardedPasswords(loginGuard, passwords);
  const reuseSeconds = (): number => auth().login_reuse_seconds;
  const parts = { store: accounts, passwords, guarded, sessions, clock, log, emit, reuseSeconds };
  const { issuer, audience } = auth();
  const tokens = createTokens({
    ...{ keys: options.tokenKeys, issuer, audience, clock, newId },
    get lifeSeconds() {
      return auth().access_token_seconds;
    },
  });
  const verifyToken = (token: string) => tokens.verify(token);
  return {
    ...{ accounts, sessions, apiKeys, loginGuard },
    loginService: createLoginService(parts, (account, sessionId) => tokens.issue(account, sessionId)),
    authenticate: createAuthenticate({ findAccount, verifyToken, sessions, apiKeys, clock }),
  };
}

/** The three ways to get tokens. */
interface LoginService {
  /** See createLogin. */
  login(request: LoginRequest): Promise<TokenPair>;
  /** See Sessions.refresh. */
  readonly refresh: TokenPairs["refresh"];
  /** See createPasswordChange. */
  changePassword(change: PasswordChange): Promise<TokenPair>;
}

type LoginServiceOptions = Omit<LoginOptions & PasswordChangeOptions, "pairs" | "sessions"> & {
  readonly sessions: Sessions;
};

/** @param issueToken signs an access token of a session */
function createLoginService(
  options: LoginServiceOptions,
  issueToken: (account: Account, sessionId: string) => IssuedToken,
): LoginService {
  const pairs = createTokenPairs(options.sessions, issueToken);
  return {
    login: createLogin({ ...options, pairs }),
    refresh: (refreshToken, origin) => pairs.refresh(refreshToken, origin),
    changePassword: createPasswordChange({ ...options, pairs }),
  };
}
