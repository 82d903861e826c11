import type { FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import type { Config } from "../../config/schema.ts";
import { cookieOf, writeCookie } from "./panel-cookie.ts";

const cookieName = "panel-oidc";
/** How long a login at an issuer may take. */
const transactionSeconds = 600;
const maxCookieLength = 3000;

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

/**
 * A login on its way to an issuer and back. It is in a cookie, so that nobody else's answer of the issuer is taken for
 * this browser's, and no process has to remember it. Whoever makes one up gets nothing: the issuer knows only what was
 * begun with the same state, nonce and verifier.
 */
export type OidcTransaction = z.output<typeof transactionSchema>;

export function keepTransaction(
  request: FastifyRequest,
  reply: FastifyReply,
  panel: Config["panel"],
  transaction: OidcTransaction,
): void {
  const value = Buffer.from(JSON.stringify(transaction)).toString("base64url");
  writeCookie(request, reply, panel, { name: cookieName, value, maxAge: transactionSeconds });
}

/**
 * The transaction that the browser brings back, and has it forget it.
 *
 * @param now ms since the epoch
 * @returns undefined if there is none of this issuer, or it is too old
 */
export function takeTransaction(
  request: FastifyRequest,
  reply: FastifyReply,
  { panel, issuer, now }: { readonly panel: Config["panel"]; readonly issuer: string; readonly now: number },
): OidcTransaction | undefined {
  const text = cookieOf(request, panel, cookieName);
  if (text === undefined) return undefined;
  writeCookie(request, reply, panel, { name: cookieName, value: "", maxAge: 0 });
  const transaction = parse(text);
  if (transaction?.issuer !== issuer) return undefined;
  const age = now / 1000 - transaction.begun;
  return age >= -1 && age <= transactionSeconds ? transaction : undefined;
}

function parse(text: string): OidcTransaction | undefined {
  if (text.length > maxCookieLength) return undefined;
  try {
    return transactionSchema.parse(JSON.parse(Buffer.from(text, "base64url").toString()));
  } catch {
    return undefined;
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
