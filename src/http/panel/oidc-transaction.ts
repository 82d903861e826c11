import type { FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import type { Config } from "../../config/schema.ts";
import { AppError } from "../../errors.ts";
import { cookieOf, writeCookie } from "./panel-cookie.ts";

const cookieName = "panel-oidc";
/** How long a login at an issuer may take. */
const transactionSeconds = 600;
const maxCookieLength = 3000;
/** Logins of one browser that are under way at once: one for each of its tabs. */
const maxTransactions = 4;

const token = z.string().min(20).max(200);

const transactionSchema = z.strictObject({
  /** The name of the issuer that was asked. */
  issuer: z.string().max(32),
  state: token,
  nonce: token,
  verifier: token,
  /** s since the epoch. */
  begun: z.int(),
  /** The page to go to. */
  then: z.string().max(1000),
  /** The session whose account is to be linked; null: a login. */
  link: z.string().max(100).nullable(),
});

const cookieSchema = z.array(transactionSchema).max(maxTransactions);

/**
 * A login on its way to an issuer and back. It is in a cookie, with those of the browser's other tabs, so that nobody
 * else's answer of the issuer is taken for this browser's, and no process has to remember it. Whoever makes one up gets
 * nothing: the issuer knows only what was begun with the same state, nonce and verifier.
 */
export type OidcTransaction = z.output<typeof transactionSchema>;

/** What a callback has to do with. */
interface TransactionQuery {
  readonly panel: Config["panel"];
  readonly issuer: string;
  /** Of the callback; null if it has none. */
  readonly state: string | null;
  /** ms since the epoch */
  readonly now: number;
}

/** Adds a transaction to those of the browser. The oldest go where they are too many. */
export function keepTransaction(
  request: FastifyRequest,
  reply: FastifyReply,
  panel: Config["panel"],
  transaction: OidcTransaction,
): void {
  const others = transactionsOf(request, panel, transaction.begun);
  write(request, reply, panel, [...others, transaction].slice(-maxTransactions));
}

/**
 * The transaction with the state that the browser brings back, and has the browser forget it. The others stay: they
 * are for other tabs, or somebody has led the browser here.
 *
 * @throws AppError `oidc_expired` if there is none of this issuer, or it is too old; `oidc_failed` if its state is
 * another
 */
export function takeTransaction(
  request: FastifyRequest,
  reply: FastifyReply,
  { panel, issuer, state, now }: TransactionQuery,
): OidcTransaction {
  const all = transactionsOf(request, panel, now / 1000);
  const found = all.find((one) => one.issuer === issuer && one.state === state);
  if (found !== undefined) {
    write(
      request,
      reply,
      panel,
      all.filter((one) => one !== found),
    );
    return found;
  }
  throw new AppError(all.some((one) => one.issuer === issuer) ? "oidc_failed" : "oidc_expired");
}

function write(
  request: FastifyRequest,
  reply: FastifyReply,
  panel: Config["panel"],
  transactions: readonly OidcTransaction[],
): void {
  const value = transactions.length === 0 ? "" : Buffer.from(JSON.stringify(transactions)).toString("base64url");
  if (value.length > maxCookieLength && transactions.length > 1) {
    write(request, reply, panel, transactions.slice(1));
    return;
  }
  writeCookie(request, reply, panel, { name: cookieName, value, maxAge: value === "" ? 0 : transactionSeconds });
}

/** Those that the browser has, without what is too old; the oldest first. */
function transactionsOf(request: FastifyRequest, panel: Config["panel"], nowSeconds: number): OidcTransaction[] {
  const text = cookieOf(request, panel, cookieName);
  return text === undefined ? [] : parse(text).filter(({ begun }) => isInTime(nowSeconds - begun));
}

function isInTime(age: number): boolean {
  return age >= -1 && age <= transactionSeconds;
}

function parse(text: string): OidcTransaction[] {
  if (text.length > maxCookieLength) return [];
  try {
    return cookieSchema.parse(JSON.parse(Buffer.from(text, "base64url").toString()));
  } catch {
    return [];
  }
}

/**
 * The page of the panel to go to after a login: a path of ours, else the first page. What browsers would read as another
 * origin, or as another path than it looks, is none.
 */
export function pageAfterLogin(wanted: string | undefined): string {
  const first = "/panel/";
  if (wanted === undefined || wanted.length > 1000) return first;
  // No page of the panel has an encoded character in its path: only the query may.
  const isPath = /^\/panel\/[\w\-./:,@]*(?:\?[\w\-./?=&%+:,@]*)?$/.test(wanted);
  const isTricky = /\/\/|\/\.|%(?:[01]|2[ef]|5c|7f|(?![0-9a-f]{2}))/i.test(wanted);
  return isPath && !isTricky && !/^\/panel\/api(?:[/?]|$)/i.test(wanted) ? wanted : first;
}
