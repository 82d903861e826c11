import type { FastifyRequest } from "fastify";
import { AppError } from "../../errors.ts";

/**
 * Refuses a request that a page of another origin may have made the browser send: a cookie comes with those too. A form
 * can't send JSON, and browsers say where a request comes from.
 *
 * @param publicUrl panel.public_url
 * @throws AppError `csrf`
 */
export function checkSameOrigin(request: FastifyRequest, publicUrl: string | undefined): void {
  if (isRead(request)) return;
  checkJson(request);
  const site = request.headers["sec-fetch-site"];
  if (site === undefined ? isOurs(request, publicUrl) : site === "same-origin") return;
  throw refusal("The request comes from a page of another origin, or doesn't say where it comes from.");
}

/**
 * The same for a login, which needs no cookie: what says nothing about its origin is no browser, and may log in.
 *
 * @throws AppError `csrf`
 */
export function checkLoginOrigin(request: FastifyRequest, publicUrl: string | undefined): void {
  const { origin, "sec-fetch-site": site } = request.headers;
  if (origin !== undefined || site !== undefined) checkSameOrigin(request, publicUrl);
  else checkJson(request);
}

function isRead({ method }: FastifyRequest): boolean {
  return method === "GET" || method === "HEAD";
}

/** Browsers ask before they send JSON to another origin, and are not allowed to. */
function checkJson({ headers }: FastifyRequest): void {
  const { "content-type": type, "content-length": length, "transfer-encoding": coding } = headers;
  const isEmpty = coding === undefined && (length === undefined || length === "0");
  if (isEmpty && type === undefined) return;
  if (/^application\/json *(;|$)/i.test(type ?? "")) return;
  throw refusal("With a cookie, only JSON is taken: Content-Type: application/json.");
}

/** The scheme is not compared: TLS may end at a reverse proxy that we are not told to trust. */
function isOurs(request: FastifyRequest, publicUrl: string | undefined): boolean {
  const { origin } = request.headers;
  if (origin === undefined) return false;
  return origin === publicUrl || origin === `https://${request.host}` || origin === `http://${request.host}`;
}

function refusal(message: string): AppError {
  return new AppError("csrf", { message });
}
