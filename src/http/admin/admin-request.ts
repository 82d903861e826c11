import type { FastifyRequest } from "fastify";
import { z } from "zod";
import type { Actor } from "../../admin/audit.ts";
import { isoOfInstant } from "../../lib/toml-instant.ts";
import { accountOfRequest } from "../plugins/access.ts";

/** The path of what belongs to a user. */
export const userParams = z.object({ name: z.string().describe("The user's name.") });

/** Who asks for a change, and from where. */
export function actorOfRequest(request: FastifyRequest): Actor {
  return { by: accountOfRequest(request).username, ip: request.ip, traceId: request.id };
}

/** A time in ms since the epoch, as answers have it. */
export function isoTime(ms: number): string {
  return isoOfInstant(ms);
}

/** The same where there may be none. */
export function isoTimeOrNull(ms: number | null): string | null {
  return ms === null ? null : isoTime(ms);
}
