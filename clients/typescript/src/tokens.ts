import {
  AuthenticationError,
  ConnectionError,
  errorOfResponse,
  isRecord,
  jsonOfResponse,
  ProxyError,
} from "./errors.ts";

/** The tokens of a session. Times are ms since the epoch. */
export interface Tokens {
  readonly accessToken: string;
  readonly refreshToken: string;
  readonly expiresAt: number;
  readonly refreshExpiresAt: number;
  /** How long the access token lived when it was issued, in ms. */
  readonly lifetimeMs: number;
}

/** Keeps the tokens of a session between runs, or for several tabs. */
export interface TokenStore {
  load(): Tokens | undefined | Promise<Tokens | undefined>;
  /** @param tokens undefined: the session is over */
  save(tokens: Tokens | undefined): void | Promise<void>;
}

/** Hands out an access token that is valid. */
export interface TokenSource {
  /** An access token that doesn't expire soon. Throws ProxyError if there is none to be had. */
  current(): Promise<string>;
  /** Another access token in place of one that the proxy has refused. */
  renew(refused: string): Promise<string>;
  /** Ends the session at the proxy, and forgets it here. */
  end(): Promise<void>;
}

/** Options of createTokenSource. */
export interface TokenSourceOptions {
  /** Without a slash at the end. */
  readonly baseUrl: string;
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  readonly otp?: (() => string | Promise<string>) | undefined;
  readonly store: TokenStore;
  readonly fetch: typeof globalThis.fetch;
  /** ms since the epoch. */
  readonly now: () => number;
}

/** A token is renewed when this much of its life is left: a minute, or a fifth of a short life. */
const earlyMs = 60_000;
/** The proxy locks an account after repeated wrong passwords, so a refused one isn't sent again for so long. */
const refusalMs = 60_000;

/** A store that forgets with the process. */
export function createMemoryStore(initial?: Tokens): TokenStore {
  let kept = initial;
  return {
    load: () => kept,
    save(tokens) {
      kept = tokens;
    },
  };
}

/** Logs in once and refreshes once, however many requests wait for it. */
export function createTokenSource(options: TokenSourceOptions): TokenSource {
  const { baseUrl, username, password, otp, store, now } = options;
  let tokens: Tokens | undefined;
  let running: Promise<string> | undefined;
  let refusal: { readonly error: ProxyError; readonly until: number } | undefined;

  const isFresh = ({ expiresAt, lifetimeMs }: Tokens): boolean => expiresAt - now() > Math.min(earlyMs, lifetimeMs / 5);

  function exchangeOnce(refused?: string): Promise<string> {
    running ??= exchange(refused).finally(() => {
      running = undefined;
    });
    return running;
  }

  async function exchange(refused: string | undefined): Promise<string> {
    // Another process or tab may have renewed them.
    tokens = (await store.load()) ?? tokens;
    if (tokens !== undefined && tokens.accessToken !== refused && isFresh(tokens)) return tokens.accessToken;
    if (tokens !== undefined && tokens.refreshExpiresAt > now()) {
      try {
        return await keep(await ask("/auth/refresh", { refresh_token: tokens.refreshToken }));
      } catch (error) {
        // The proxy may be away for a moment while the token is still valid.
        const isValid = tokens.accessToken !== refused && tokens.expiresAt > now();
        if (!isOver(error) && isValid) return tokens.accessToken;
        if (!isOver(error)) throw error;
        await forget();
        if (password === undefined) throw error;
      }
    }
    return logIn();
  }

  async function logIn(): Promise<string> {
    if (username === undefined || password === undefined) {
      await forget();
      throw new AuthenticationError({ code: "login_required", message: "The session is over. Log in again." });
    }
    if (refusal !== undefined && refusal.until > now()) throw refusal.error;
    try {
      const answer = await ask("/auth/login", { username, password }).catch(async (error: unknown) => {
        if (!(error instanceof ProxyError) || error.code !== "otp_required" || otp === undefined) throw error;
        return ask("/auth/login", { username, password, otp: await otp() });
      });
      return await keep(answer);
    } catch (error) {
      if (isOver(error)) refusal = { error, until: now() + refusalMs };
      throw error;
    }
  }

  async function ask(path: string, body: object): Promise<unknown> {
    const response = await options
      .fetch(`${baseUrl}${path}`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
        redirect: "error",
      })
      .catch((cause: unknown) => {
        throw new ConnectionError({ code: "connection_failed", message: `${baseUrl} can't be reached.`, cause });
      });
    if (!response.ok) throw await errorOfResponse(response);
    return jsonOfResponse(response);
  }

  async function keep(answer: unknown): Promise<string> {
    tokens = tokensOf(answer, now());
    refusal = undefined;
    await store.save(tokens);
    return tokens.accessToken;
  }

  async function forget(): Promise<void> {
    tokens = undefined;
    await store.save(undefined);
  }

  return {
    async current() {
      return tokens !== undefined && isFresh(tokens) ? tokens.accessToken : exchangeOnce();
    },
    async renew(refused) {
      if (running !== undefined) await running.catch(() => undefined);
      if (tokens !== undefined && tokens.accessToken !== refused && isFresh(tokens)) return tokens.accessToken;
      return exchangeOnce(refused);
    },
    async end() {
      const ended = (await store.load()) ?? tokens;
      await forget();
      if (ended === undefined) return;
      const response = await options.fetch(`${baseUrl}/auth/logout`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ refresh_token: ended.refreshToken }),
      });
      if (!response.ok) throw await errorOfResponse(response);
    },
  };
}

/** Reads an answer of /auth/login, /auth/refresh or /auth/password. */
export function tokensOf(answer: unknown, now: number): Tokens {
  const { access_token, refresh_token, expires_in, refresh_expires_in } = isRecord(answer) ? answer : {};
  if (
    typeof access_token !== "string" ||
    typeof refresh_token !== "string" ||
    typeof expires_in !== "number" ||
    typeof refresh_expires_in !== "number"
  ) {
    throw new ConnectionError({ code: "bad_answer", message: "The server at this address is no deepseek-proxy." });
  }
  return {
    accessToken: access_token,
    refreshToken: refresh_token,
    expiresAt: now + expires_in * 1000,
    refreshExpiresAt: now + refresh_expires_in * 1000,
    lifetimeMs: expires_in * 1000,
  };
}

/** Whether the proxy refused the credentials themselves, so that trying the same again is of no use. */
function isOver(error: unknown): error is ProxyError {
  return error instanceof ProxyError && (error.status === 401 || error.status === 403 || error.status === 400);
}
