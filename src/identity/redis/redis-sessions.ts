import { AppError } from "../../errors.ts";
import type { Emit } from "../../events/catalogue.ts";
import type { Awaitable } from "../../lib/awaitable.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import { type Redis, RedisUnavailableError } from "../../lib/redis/redis.ts";
import type { Account } from "../account-schema.ts";
import { checkUsable } from "../account-state.ts";
import { createOwnedTextFormat, type OwnedTextFormat } from "../files/owned-text.ts";
import { fromRow, lostResponseMs, sessionRow, toRow } from "../files/session-file.ts";
import {
  newSession,
  type SessionFigures,
  crowdedOut,
  endOf,
  exchangeSecret,
  provenByCookie,
  type Session,
} from "../files/session.ts";
import type { RefreshGrant, SessionInfo, Sessions } from "../sessions.ts";
import {
  cookieText,
  digestOf,
  newRefreshToken,
  parseCookie,
  parseRefreshToken,
  refreshTokenText,
  type RefreshToken,
} from "../sessions/refresh-token.ts";
import type { Documents } from "./documents.ts";
import { createOwnedDocuments, type CurrentList, type OwnedEdit } from "./owned-documents.ts";
import { createPointers } from "./pointers.ts";

export interface RedisSessionsOptions {
  readonly redis: Redis;
  readonly documents: Documents;
  readonly clock: Clock;
  readonly log: Log;
  readonly emit: Emit;
  readonly newId: () => string;
  /** Users.get */
  readonly findAccount: (name: string) => Awaitable<Account | undefined>;
  /** Makes the next findAccount read the account again. */
  readonly forgetAccount: (name: string) => void;
  readonly figures: SessionFigures;
  /** ms since the epoch instead of Redis's time. For tests. */
  readonly now?: (() => number) | undefined;
}

/**
 * Sessions in Redis: a document for each user with the text of NAME.sessions.toml, and for each session and each
 * refresh family whose it is.
 */
export interface RedisSessions extends Sessions {
  /** At once while it may be trusted. */
  isLive(id: string): Awaitable<boolean>;
  close(): Promise<void>;
}

/** The outcome of an exchange that did not throw. */
type Exchanged =
  { readonly grant: RefreshGrant } | { readonly error: AppError; readonly ended: Session; readonly isReuse: boolean };

/** Sessions as they are stored. None has a leeway yet: it depends on the time of the exchange. */
export function createSessionFormat(): OwnedTextFormat<Session> {
  return createOwnedTextFormat({
    kind: "sessions",
    schema: sessionRow,
    read: (user, row) => fromRow(user, row, { now: Infinity, monotonic: 0, leewayMs: 0 }),
  });
}

export function openRedisSessions(options: RedisSessionsOptions): RedisSessions {
  const { redis, documents, clock, log, findAccount, figures } = options;
  const monotonic = (): number => clock.monotonic();
  const format = createSessionFormat();
  const nameOf = ({ id }: Session): string => id;
  const owned = createOwnedDocuments<Session>({ kind: "sessions", redis, documents, format, nameOf, log, monotonic });
  const byId = createPointers(documents, "session", monotonic);
  const byFamily = createPointers(documents, "family", monotonic);
  /** When Redis last failed to answer, by its own clock as far as it is known, in ms since the epoch. */
  let troubledAt = 0;
  let isTroubled = true;

  const isOver = (session: Session): boolean => endOf(session, figures) <= clock.now();

  /**
   * Changes a user's sessions. After a failure of Redis, and after the start, its time is noted: responses may have been
   * lost, and their clients can only retry now.
   */
  async function change<R>(user: string, edit: (current: CurrentList<Session>) => Awaitable<OwnedEdit<R>>): Promise<R> {
    try {
      return await owned.change(user, (current) => {
        const now = options.now?.() ?? current.now;
        if (isTroubled) [isTroubled, troubledAt] = [false, now];
        return edit({ ...current, now });
      });
    } catch (error) {
      if (error instanceof RedisUnavailableError) isTroubled = true;
      throw error;
    }
  }

  /** Until when a spent secret gets its successor is counted by Redis's clock: all processes agree on it. */
  function withLeeway(session: Session): Session {
    const leewayMs = figures.leewaySeconds * 1000;
    const untilOf = (at: number): number => {
      const isLost = at < troubledAt && troubledAt - at < lostResponseMs;
      return (isLost ? troubledAt : at) + leewayMs;
    };
    return { ...session, spent: session.spent.map((one) => ({ ...one, until: untilOf(one.at) })) };
  }

  /** A session of another version than its account's is over, unless what is cached of the account is out of date. */
  async function accountOf({ user, version }: Session): Promise<Account | undefined> {
    const known = await findAccount(user);
    if (known?.token_version === version) return known;
    options.forgetAccount(user);
    return findAccount(user);
  }

  async function exchange(
    current: CurrentList<Session>,
    family: string,
    token: RefreshToken,
  ): Promise<OwnedEdit<Exchanged>> {
    const { entries, now } = current;
    const session = entries.find((one) => one.family === family);
    if (session === undefined) throw notValid();
    const without = entries.filter((one) => one !== session).map(toRow);
    if (isOver(session)) throw new AppError("token_expired", { message: "The session has expired. Log in again." });
    const account = await accountOf(session);
    if (account?.token_version !== session.version) {
      return { result: { error: notValid(), ended: session, isReuse: false }, rows: without };
    }
    const time = { now, monotonic: now, leewayMs: figures.leewaySeconds * 1000 };
    const before = withLeeway(session);
    const exchanged = exchangeSecret(before, token.secret, time);
    if (exchanged === undefined) {
      // Either the thief or the owner came second, and we can't tell which: both must log in again.
      const error = notValid("This refresh token was used before, so its session has been ended. Log in again.");
      return { result: { error, ended: session, isReuse: true }, rows: without };
    }
    checkUsable(account, clock.now());
    const next = exchanged.session;
    const granted = grant(account, next, { family: token.family, secret: exchanged.secret });
    if (next === before) return { result: { grant: granted } };
    return { result: { grant: granted }, rows: entries.map((one) => toRow(one === session ? next : one)) };
  }

  function grant(account: Account, session: Session, token: RefreshToken): RefreshGrant {
    const refreshToken = refreshTokenText(token);
    return { account, sessionId: session.id, refreshToken, refreshExpiresAt: endOf(session, figures) };
  }

  async function unpoint(sessions: readonly Session[]): Promise<void> {
    await Promise.allSettled(sessions.flatMap(({ id, family }) => [byId.remove(id), byFamily.remove(family)]));
  }

  async function add(account: Account, session: Session): Promise<void> {
    const { user } = session;
    // Longer than the session, which is refused as expired in the meantime.
    const lifeMs = 2000 * figures.sessionSeconds;
    await Promise.all([byId.add(session.id, user, lifeMs), byFamily.add(session.family, user, lifeMs)]);
    const ended = await change(user, ({ entries }): OwnedEdit<readonly Session[]> => {
      const dead = entries.filter((one) => isOver(one) || one.version < account.token_version);
      const live = entries.filter((one) => !dead.includes(one));
      const crowded = crowdedOut(live, session, figures.maxSessions);
      const left = live.filter((one) => !crowded.includes(one));
      return { result: [...dead, ...crowded], rows: [...left, session].map(toRow) };
    });
    await unpoint(ended);
  }

  /** Ends the sessions that the predicate chooses. */
  async function drop(user: string, isDropped: (session: Session) => boolean): Promise<readonly Session[]> {
    const dropped = await change(user, ({ entries }): OwnedEdit<readonly Session[]> => {
      const gone = entries.filter(isDropped);
      const left = entries.filter((one) => !gone.includes(one)).map(toRow);
      return { result: gone, rows: gone.length === 0 ? undefined : left };
    });
    await unpoint(dropped);
    return dropped;
  }

  async function find(id: string, owner: Awaitable<string | undefined>): Promise<Session | undefined> {
    const user = await owner;
    if (user === undefined) return undefined;
    // One that was opened a moment ago by another process may not be in what is cached.
    const session = (await owned.get(user)).byName.get(id) ?? (await owned.renew(user)).byName.get(id);
    if (session === undefined) byId.forget(id);
    return session;
  }

  /** At once where it is cached. */
  function look(id: string): Awaitable<Session | undefined> {
    const owner = byId.ownerOf(id);
    if (typeof owner !== "string") return owner === undefined ? undefined : find(id, owner);
    return owned.atOnce(owner)?.byName.get(id) ?? find(id, owner);
  }

  /** The family of a refresh token, and whose it is. */
  async function familyOf(refreshToken: string) {
    const token = parseRefreshToken(refreshToken);
    if (token === undefined) return undefined;
    const family = digestOf(token.family);
    const user = await byFamily.ownerOf(family);
    return user === undefined ? undefined : { token, family, user };
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
    async ofCookie(cookie) {
      const token = parseCookie(cookie);
      if (token === undefined) return undefined;
      const family = digestOf(token.family);
      const user = await byFamily.ownerOf(family);
      if (user === undefined) return undefined;
      const isIt = (one: Session): boolean => one.family === family;
      const known = owned.atOnce(user) ?? (await owned.get(user));
      // One that was opened a moment ago by another process may not be in what is cached.
      const session = known.entries.find(isIt) ?? (await owned.renew(user)).entries.find(isIt);
      if (session === undefined) byFamily.forget(family);
      return session === undefined || isOver(session) ? undefined : provenByCookie(session, token);
    },
    async refresh(refreshToken, { ip, traceId }) {
      const found = await familyOf(refreshToken);
      if (found === undefined) throw notValid();
      const { token, family, user } = found;
      const exchanged = await change(user, (current) => exchange(current, family, token));
      if ("grant" in exchanged) return exchanged.grant;
      const { error, ended, isReuse } = exchanged;
      if (isReuse) {
        options.emit({ type: "session.reuse_detected", at: clock.now(), traceId, ip, user, subject: ended.id });
      }
      await unpoint([ended]);
      throw error;
    },
    isLive(id) {
      const session = look(id);
      return session instanceof Promise ? session.then((later) => later !== undefined) : session !== undefined;
    },
    isUntouched: async (id) => (await look(id))?.spent.length === 0,
    async list(user) {
      const version = (await findAccount(user))?.token_version;
      const { entries } = await owned.get(user);
      return entries
        .filter((session) => !isOver(session) && version === session.version)
        .sort((a, b) => b.usedAt - a.usedAt)
        .map((session): SessionInfo => {
          const { id, createdAt, usedAt, ip, client } = session;
          return { id, createdAt, usedAt, ip, client, expiresAt: endOf(session, figures) };
        });
    },
    end: async (user, id) => (await drop(user, (session) => session.id === id)).length > 0,
    endAll: async (user) => (await drop(user, () => true)).length,
    async endByToken(refreshToken) {
      const found = await familyOf(refreshToken);
      if (found === undefined) return undefined;
      const [ended] = await drop(found.user, ({ family }) => family === found.family);
      return ended === undefined ? undefined : { user: ended.user, id: ended.id };
    },
    problems: () => owned.problems(),
    close: () => owned.idle(),
  };
}

function notValid(message = "The refresh token is not valid. Log in again."): AppError {
  return new AppError("invalid_token", { message });
}
