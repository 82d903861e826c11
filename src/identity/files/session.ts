import type { Config } from "../../config/schema.ts";
import type { Account } from "../account-schema.ts";
import type { CookieSession, Origin } from "../sessions.ts";
import { cookieDigestOf, digestOf, newSalt, successorOf, type RefreshToken } from "../sessions/refresh-token.ts";

/** One login of a user, and the state of its refresh token. Replaced at every change. Times in ms since the epoch. */
export interface Session {
  /** Public: it appears in access tokens, lists and logs, and grants nothing. */
  readonly id: string;
  readonly user: string;
  /** Digest of the family. */
  readonly family: string;
  /** Digest of the current secret. */
  readonly current: string;
  /**
   * Recently exchanged secrets, oldest first. Older ones need not be stored: every secret that isn't current is spent.
   */
  readonly spent: readonly SpentSecret[];
  /** The account's token_version at login; once it differs, the session is over. */
  readonly version: number;
  readonly createdAt: number;
  /** The login or the last exchange. */
  readonly usedAt: number;
  /** Address and User-Agent of the login. */
  readonly ip: string;
  readonly client: string;
  /** Whether a cookie of the panel proves it, and not tokens. */
  readonly isCookie: boolean;
}

/** A secret that was exchanged for its successor. */
export interface SpentSecret {
  /** Its digest. */
  readonly hash: string;
  /** Derives the successor of the secret. */
  readonly salt: string;
  /** ms since the epoch. */
  readonly at: number;
  /** Monotonic ms: until then the secret still gets its successor. */
  readonly until: number;
}

/** No longer texts could be read from a file again. */
export const maxIpLength = 64;
export const maxClientLength = 200;

/** The session of a new login. */
export function newSession(
  account: Pick<Account, "username" | "token_version">,
  { ip, client }: Pick<Origin, "ip" | "client">,
  {
    id,
    token,
    now,
    isCookie = false,
  }: { readonly id: string; readonly token: RefreshToken; readonly now: number; readonly isCookie?: boolean },
): Session {
  return {
    id,
    user: account.username,
    family: digestOf(token.family),
    current: isCookie ? cookieDigestOf(token.secret) : digestOf(token.secret),
    spent: [],
    version: account.token_version,
    createdAt: now,
    usedAt: now,
    ip: ip.slice(0, maxIpLength),
    client: client.slice(0, maxClientLength),
    isCookie,
  };
}

/** The session as its cookie proves it; undefined if the cookie's secret is another. */
export function provenByCookie(session: Session, { secret }: RefreshToken): CookieSession | undefined {
  const { id, user, version, createdAt, current } = session;
  return current === cookieDigestOf(secret) ? { id, user, version, createdAt } : undefined;
}

/** How long sessions last, and how many a user may have; read at every use, since they may change. */
export interface SessionFigures {
  /** From the login to the end, whatever the use. */
  readonly sessionSeconds: number;
  /** From one exchange to the end if no other follows. */
  readonly idleSeconds: number;
  /** From the login to the end of a session with a cookie, where that comes first. */
  readonly cookieSeconds: number;
  /** How long an exchanged token still gets the same successor. */
  readonly leewaySeconds: number;
  /** Per user; beyond it old sessions are ended. */
  readonly maxSessions: number;
}

/** When a session ends if it is not used again, in ms since the epoch. */
export function endOf({ createdAt, usedAt, isCookie }: Session, figures: SessionFigures): number {
  const end = Math.min(createdAt + figures.sessionSeconds * 1000, usedAt + figures.idleSeconds * 1000);
  return isCookie ? Math.min(end, createdAt + figures.cookieSeconds * 1000) : end;
}

/** The figures of [auth] and [panel] in force. */
export function sessionFigures(auth: () => Config["auth"], panel: () => Config["panel"]): SessionFigures {
  return {
    get sessionSeconds() {
      return auth().session_seconds;
    },
    get idleSeconds() {
      return auth().refresh_token_seconds;
    },
    get cookieSeconds() {
      return panel().session_seconds;
    },
    get leewaySeconds() {
      return auth().refresh_leeway_seconds;
    },
    get maxSessions() {
      return auth().max_sessions;
    },
  };
}

/** The time of an exchange on both clocks. */
export interface ExchangeTime {
  /** ms since the epoch. */
  readonly now: number;
  /** Monotonic ms. */
  readonly monotonic: number;
  readonly leewayMs: number;
}

/** An exchange. The session is the same object if the secret had been exchanged before. */
export interface Exchange {
  readonly session: Session;
  /** The new current secret. */
  readonly secret: Buffer;
}

/** More exchanges within the leeway than any legitimate client makes. */
const maxSpent = 8;

/**
 * Exchanges a secret for its successor. A secret exchanged within the leeway gets the current secret, so any number of
 * parallel exchanges all get the same one.
 *
 * @returns undefined if the secret was spent longer ago: somebody else has a copy of it
 */
export function exchangeSecret(session: Session, secret: Buffer, time: ExchangeTime): Exchange | undefined {
  const hash = digestOf(secret);
  if (hash === session.current) {
    const salt = newSalt();
    const next = successorOf(secret, salt);
    const spent = session.spent.filter(({ until }) => until > time.monotonic).slice(1 - maxSpent);
    const link = { hash, salt, at: time.now, until: time.monotonic + time.leewayMs };
    return {
      session: { ...session, current: digestOf(next), spent: [...spent, link], usedAt: time.now },
      secret: next,
    };
  }
  const at = session.spent.findIndex((one) => one.hash === hash && one.until > time.monotonic);
  if (at < 0) return undefined;
  return { session, secret: session.spent.slice(at).reduce((last, { salt }) => successorOf(last, salt), secret) };
}

/**
 * The sessions to end so that one more fits. First those of the same program at the same address, so that a script
 * which logs in all day displaces only its own; then the least recently used.
 */
export function crowdedOut(sessions: readonly Session[], newcomer: Session, max: number): readonly Session[] {
  const surplus = sessions.length + 1 - max;
  if (surplus <= 0) return [];
  const isOther = ({ ip, client }: Session) => Number(ip !== newcomer.ip || client !== newcomer.client);
  return [...sessions].sort((a, b) => isOther(a) - isOther(b) || a.usedAt - b.usedAt).slice(0, surplus);
}

/** The live sessions, indexed in three ways. */
export interface SessionIndex {
  get(id: string): Session | undefined;
  /** @param family digest of the family */
  ofFamily(family: string): Session | undefined;
  ofUser(user: string): readonly Session[];
  /** Adds a session, or replaces the one with its id. */
  put(session: Session): void;
  /** Returns whether it was present. */
  drop(session: Session): boolean;
}

export function createSessionIndex(): SessionIndex {
  const byId = new Map<string, Session>();
  const idOfFamily = new Map<string, string>();
  const idsOfUser = new Map<string, Set<string>>();
  const get = (id: string) => byId.get(id);

  return {
    get,
    ofFamily: (family) => get(idOfFamily.get(family) ?? ""),
    ofUser: (user) => [...(idsOfUser.get(user) ?? [])].map(get).filter((session) => session !== undefined),
    put(session) {
      const { id, family, user } = session;
      byId.set(id, session);
      idOfFamily.set(family, id);
      const ids = idsOfUser.get(user);
      if (ids === undefined) idsOfUser.set(user, new Set([id]));
      else ids.add(id);
    },
    drop({ id, family, user }) {
      const ids = idsOfUser.get(user);
      ids?.delete(id);
      if (ids?.size === 0) idsOfUser.delete(user);
      idOfFamily.delete(family);
      return byId.delete(id);
    },
  };
}
