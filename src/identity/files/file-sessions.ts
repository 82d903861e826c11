import { AppError } from "../../errors.ts";
import type { Emit } from "../../events/catalogue.ts";
import type { Awaitable } from "../../lib/awaitable.ts";
import type { Clock } from "../../lib/clock.ts";
import type { FileOps } from "../../lib/files/file-ops.ts";
import type { Log } from "../../lib/log.ts";
import type { Account } from "../account-schema.ts";
import { checkUsable } from "../account-state.ts";
import { createKeyedQueue } from "./keyed-queue.ts";
import { createOwnedFiles } from "./owned-files.ts";
import {
  cookieText,
  digestOf,
  newRefreshToken,
  parseCookie,
  parseRefreshToken,
  refreshTokenText,
  type RefreshToken,
} from "../sessions/refresh-token.ts";
import { fromRow, sessionRow, toRow } from "./session-file.ts";
import type { CookieGrant, CookieSession, Origin, RefreshGrant, SessionInfo, Sessions } from "../sessions.ts";
import type { AccountProblem } from "../users.ts";
import {
  newSession,
  type SessionFigures,
  createSessionIndex,
  crowdedOut,
  endOf,
  exchangeSecret,
  provenByCookie,
  type Session,
} from "./session.ts";

/** Sessions in users/NAME.sessions.toml. */
export interface FileSessions extends Sessions {
  /** Never fails: a session that can't be written lasts until the proxy is restarted, unless that succeeds later. */
  open(account: Account, origin: Origin): Promise<RefreshGrant>;
  openCookie(account: Account, origin: Origin): Promise<CookieGrant>;
  /** Two Map lookups and a digest. */
  ofCookie(cookie: string): CookieSession | undefined;
  refresh(refreshToken: string, origin: Origin): Promise<RefreshGrant>;
  /** One Map lookup. */
  isLive(id: string): boolean;
  isUntouched(id: string): boolean;
  list(user: string): Promise<readonly SessionInfo[]>;
  end(user: string, id: string): Promise<boolean>;
  endAll(user: string): Promise<number>;
  problems(): readonly AccountProblem[];
  /** Waits for pending writes, and retries failed ones. */
  close(): Promise<void>;
}

export interface FileSessionsOptions {
  readonly usersDir: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly emit: Emit;
  readonly newId: () => string;
  /** Users.get */
  readonly findAccount: (name: string) => Awaitable<Account | undefined>;
  readonly figures: SessionFigures;
  /** ms after which a failed write is repeated; default ten seconds. */
  readonly retryMs?: number;
  readonly fileOps?: FileOps;
}

/**
 * Loads the sessions from users/NAME.sessions.toml. Rejects if the folder can't be read.
 *
 * An expired session is refused, but forgotten only when its user logs in again: while the clock is wrong, all of them
 * may look expired.
 */
export async function openFileSessions(options: FileSessionsOptions): Promise<FileSessions> {
  const { usersDir, clock, log, findAccount, figures, fileOps } = options;
  const index = createSessionIndex();
  /** Users whose file is out of date because a write failed. */
  const behind = new Set<string>();
  /** Exchanges and writes of one user run one after another. */
  const queue = createKeyedQueue();

  let retry: Promise<void> | undefined;
  /** Writes what could not be written: a session that was ended would come back with the next start. Never rejects. */
  async function writeBehind(): Promise<void> {
    for (const user of [...behind]) await queue.run(user, () => save(user)).catch(() => undefined);
  }

  const time = () => {
    const leewayMs = figures.leewaySeconds * 1000;
    return { now: clock.now(), monotonic: clock.monotonic(), leewayMs };
  };
  const isOver = (session: Session): boolean => endOf(session, figures) <= clock.now();

  const files = createOwnedFiles({
    usersDir,
    kind: "sessions",
    schema: sessionRow,
    log,
    fileOps,
    read: (user, row) => fromRow(user, row, time()),
    namesOf: ({ id, family }) => [id, family],
  });
  for (const sessions of (await files.loadAll()).values()) for (const session of sessions) index.put(session);
  const retrying = setInterval(() => {
    // On a disk that hangs one try lasts for longer.
    retry ??= writeBehind().finally(() => (retry = undefined));
  }, options.retryMs ?? 10_000).unref();

  /**
   * Writes a user's current sessions, with one replaced by its changed version, which is not in force yet. Only inside
   * a task of the queue.
   */
  async function save(user: string, changed?: Session): Promise<void> {
    const sessions = index.ofUser(user).map((session) => (session.id === changed?.id ? changed : session));
    try {
      await files.save(user, sessions.map(toRow));
      behind.delete(user);
    } catch (cause) {
      behind.add(user);
      log.error({ user, err: cause }, "the sessions of a user could not be written");
      throw new AppError("storage_unavailable", { message: "The session could not be saved.", cause });
    }
  }

  function grant(account: Account, session: Session, token: RefreshToken): RefreshGrant {
    const refreshToken = refreshTokenText(token);
    return { account, sessionId: session.id, refreshToken, refreshExpiresAt: endOf(session, figures) };
  }

  async function exchange(id: string, token: RefreshToken, origin: Origin): Promise<RefreshGrant> {
    const session = index.get(id);
    if (session === undefined) throw notValid();
    const { user } = session;
    const account = await findAccount(user);
    // Ended while its account was looked up.
    if (index.get(id) !== session) throw notValid();
    if (isOver(session)) throw new AppError("token_expired", { message: "The session has expired. Log in again." });
    if (account?.token_version !== session.version) {
      index.drop(session);
      throw notValid();
    }
    const exchanged = exchangeSecret(session, token.secret, time());
    if (exchanged === undefined) return endReused(session, origin);
    checkUsable(account, clock.now());
    if (exchanged.session !== session) {
      // On disk first: after a crash, a client with a token unknown to the disk would be taken for a thief.
      await save(user, exchanged.session);
      // Ended while it was being written; whatever ended it writes next.
      if (index.get(id) !== session) throw notValid();
      index.put(exchanged.session);
    }
    return grant(account, exchanged.session, { family: token.family, secret: exchanged.secret });
  }

  /** Either the thief or the owner came second, and we can't tell which: both must log in again. */
  async function endReused(session: Session, { ip, traceId }: Origin): Promise<never> {
    const { user, id } = session;
    index.drop(session);
    options.emit({ type: "session.reuse_detected", at: clock.now(), traceId, ip, user, subject: id });
    await save(user).catch(() => undefined);
    throw notValid("This refresh token was used before, so its session has been ended. Log in again.");
  }

  async function add(account: Account, session: Session): Promise<void> {
    const { user } = session;
    await queue.run(user, async () => {
      const dead = index.ofUser(user).filter((one) => isOver(one) || one.version < account.token_version);
      for (const one of dead) index.drop(one);
      for (const one of crowdedOut(index.ofUser(user), session, figures.maxSessions)) index.drop(one);
      index.put(session);
      await save(user).catch(() => undefined);
    });
  }

  async function drop(user: string, sessions: readonly Session[]): Promise<number> {
    const count = sessions.filter((session) => index.drop(session)).length;
    // Even if nothing was left to drop: an earlier end of it may still be on its way to the disk, or have failed.
    await queue.run(user, () => save(user));
    return count;
  }

  return {
    async open(account, origin) {
      const token = newRefreshToken();
      const session = newSession(account, origin, { id: options.newId(), token, now: clock.now() });
      await add(account, session);
      return grant(account, session, token);
    },
    async openCookie(account, origin) {
      const token = newRefreshToken();
      const session = newSession(account, origin, { id: options.newId(), token, now: clock.now(), isCookie: true });
      await add(account, session);
      return { account, sessionId: session.id, cookie: cookieText(token) };
    },
    ofCookie(cookie) {
      const token = parseCookie(cookie);
      const session = token === undefined ? undefined : index.ofFamily(digestOf(token.family));
      if (token === undefined || session === undefined || isOver(session)) return undefined;
      return provenByCookie(session, token);
    },
    refresh(refreshToken, origin) {
      const token = parseRefreshToken(refreshToken);
      const session = token === undefined ? undefined : index.ofFamily(digestOf(token.family));
      if (token === undefined || session === undefined) return Promise.reject(notValid());
      return queue.run(session.user, () => exchange(session.id, token, origin));
    },
    isLive: (id) => index.get(id) !== undefined,
    isUntouched: (id) => index.get(id)?.spent.length === 0,
    async list(user) {
      const version = (await findAccount(user))?.token_version;
      return index
        .ofUser(user)
        .filter((session) => !isOver(session) && version === session.version)
        .sort((a, b) => b.usedAt - a.usedAt)
        .map((session) => {
          const { id, createdAt, usedAt, ip, client } = session;
          return { id, createdAt, usedAt, ip, client, expiresAt: endOf(session, figures) };
        });
    },
    async end(user, id) {
      const session = index.get(id);
      return session?.user === user && (await drop(user, [session])) > 0;
    },
    endAll: (user) => drop(user, index.ofUser(user)),
    async endByToken(refreshToken) {
      const token = parseRefreshToken(refreshToken);
      const session = token === undefined ? undefined : index.ofFamily(digestOf(token.family));
      if (session === undefined) return undefined;
      const { user, id } = session;
      return (await drop(user, [session])) > 0 ? { user, id } : undefined;
    },
    problems: () => files.problems(),
    async close() {
      clearInterval(retrying);
      await retry;
      await queue.idle();
      await writeBehind();
    },
  };
}

function notValid(message = "The refresh token is not valid. Log in again."): AppError {
  return new AppError("invalid_token", { message });
}
