import type { FastifyRequest } from "fastify";
import { z } from "zod";
import type { Actor } from "../../admin/audit.ts";
import { isoOfInstant } from "../../lib/wall-clock.ts";
import { accountOfRequest } from "../plugins/authenticate.ts";

/** The path parameters of everything that belongs to a user. */
export const userParams = z.object({ name: z.string().describe("The user's name.") });

/** Who makes a change, and from where. */
export function actorOfRequest(request: FastifyRequest): Actor {
  return { by: accountOfRequest(request).username, ip: request.ip, traceId: request.id };
}

/** A time in ms since the epoch, as responses show it. */
export function isoTime(ms: number): string {
  return isoOfInstant(ms);
}

/** The same for a time that may be absent. */
export function isoTimeOrNull(ms: number | null): string | null {
  return ms === null ? null : isoTime(ms);
}

/**
 * Whether a request's If-Match and If-None-Match accept a given strong entity tag (RFC 9110, 13.1.1 and 13.1.2);
 * undefined if it has neither. For changes: a GET would respond with 304 instead of 412.
 */
export function ifMatchOf({ headers }: FastifyRequest): ((etag: string) => boolean) | undefined {
  const { "if-match": wanted, "if-none-match": unwanted } = headers;
  if (wanted === undefined && unwanted === undefined) return undefined;
  const allowed = wanted === undefined ? ["*"] : tagsOf(wanted);
  // If-None-Match compares weakly: the weakness prefix makes no difference.
  const refused = tagsOf(unwanted ?? "").map((tag) => (tag.startsWith("W/") ? tag.slice(2) : tag));
  return (etag) => has(allowed, etag) && !has(refused, etag);
}

function tagsOf(header: string): readonly string[] {
  return header.split(",").map((tag) => tag.trim());
}

function has(tags: readonly string[], etag: string): boolean {
  return tags.includes("*") || tags.includes(etag);
}
