import { z } from "zod";
import type { SessionInfo } from "../../identity/sessions.ts";

const time = z.iso.datetime();

/** A session in a list. */
export const sessionResponse = z.object({
  id: z.string(),
  created_at: time,
  last_used_at: time.describe("The login or the last refresh."),
  expires_at: time.describe("When it ends if it isn't refreshed."),
  ip: z.string().describe("Address of the login."),
  client: z.string().describe("User-Agent of the login."),
});

export function toSessionResponse(session: SessionInfo): z.input<typeof sessionResponse> {
  const { id, createdAt, usedAt, expiresAt, ip, client } = session;
  return {
    id,
    created_at: new Date(createdAt).toISOString(),
    last_used_at: new Date(usedAt).toISOString(),
    expires_at: new Date(expiresAt).toISOString(),
    ip,
    client,
  };
}
