import type { FastifyRequest } from "fastify";

/**
 * Whether a request means what has a given strong entity tag (RFC 9110, 13.1.1); undefined where it has no If-Match.
 * Weak tags never match.
 */
export function ifMatchOf(request: FastifyRequest): ((etag: string) => boolean) | undefined {
  const header = request.headers["if-match"];
  if (header === undefined) return undefined;
  const tags = header.split(",").map((tag) => tag.trim());
  return (etag) => tags.includes("*") || tags.includes(etag);
}
