import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { CredentialsAdmin } from "../../admin/credentials-admin.ts";
import { lockScopes } from "../../events/payloads.ts";
import { errorSchema } from "../schemas/errors.ts";
import { listedKeyResponse, toListedKeyResponse } from "../schemas/keys.ts";
import { sessionResponse, toSessionResponse } from "../schemas/sessions.ts";
import { actorOfRequest, userParams } from "./admin-request.ts";

const ownParams = userParams.extend({ id: z.string().max(64) });

const locksResponse = z.object({
  locks: z.array(
    z.object({
      scope: z
        .enum(lockScopes)
        .describe("What is locked: an account, an address, or an account at one of its known addresses."),
      user: z.string().nullable().describe("null if an address is locked for all accounts."),
      guesses: z
        .enum(["password", "code"])
        .nullable()
        .describe("What was guessed: `code` is the second factor. null if an address is locked."),
      address: z.string().nullable().describe("An IPv4 address or an IPv6 /64; null: from any address."),
      failures: z.int(),
      retry_after_ms: z.number(),
    }),
  ),
});

/** Users' sessions and API keys, and the waits after failed logins. */
export function registerCredentialsRoutes(app: FastifyInstance, credentials: CredentialsAdmin): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const config = { access: "admin" } as const;
  const tags = ["admin"];
  const refusals = { 400: errorSchema, 404: errorSchema, 503: errorSchema };
  const gone = { 204: z.null().describe("Done."), ...refusals };
  const schemaOf = <Body extends z.ZodType>(summary: string, body: Body) => ({
    config,
    schema: { summary, tags, params: userParams, response: { 200: body, ...refusals } },
  });

  routes.get(
    "/admin/users/:name/sessions",
    schemaOf("A user's sessions", z.object({ sessions: z.array(sessionResponse) })),
    async ({ params }) => ({ sessions: (await credentials.sessions(params.name)).map(toSessionResponse) }),
  );

  routes.delete(
    "/admin/users/:name/sessions",
    schemaOf("End all sessions of a user", z.object({ ended: z.int() })),
    async (request) => ({ ended: await credentials.endSessions(actorOfRequest(request), request.params.name) }),
  );

  routes.delete(
    "/admin/users/:name/sessions/:id",
    { config, schema: { summary: "End a session", tags, params: ownParams, response: gone } },
    async (request, reply) => {
      const { name, id } = request.params;
      await credentials.endSession(actorOfRequest(request), name, id);
      return reply.code(204).send(null);
    },
  );

  routes.get(
    "/admin/users/:name/keys",
    schemaOf("A user's API keys", z.object({ keys: z.array(listedKeyResponse) })),
    async ({ params }) => ({ keys: (await credentials.keys(params.name)).map(toListedKeyResponse) }),
  );

  routes.delete(
    "/admin/users/:name/keys/:id",
    { config, schema: { summary: "Revoke an API key", tags, params: ownParams, response: gone } },
    async (request, reply) => {
      const { name, id } = request.params;
      await credentials.revokeKey(actorOfRequest(request), name, id);
      return reply.code(204).send(null);
    },
  );

  routes.get(
    "/admin/login-locks",
    {
      config,
      schema: {
        summary: "Accounts and addresses that must wait before the next login",
        tags,
        response: { 200: locksResponse },
      },
    },
    async () => ({
      locks: (await credentials.locks()).map(({ retryAfterMs, ...lock }) => ({
        ...lock,
        retry_after_ms: retryAfterMs,
      })),
    }),
  );

  routes.post(
    "/admin/users/:name/unlock",
    schemaOf(
      "Forget an account's failed logins",
      z.object({ unlocked: z.boolean().describe("false if there were none.") }),
    ),
    async (request) => ({ unlocked: await credentials.unlock(actorOfRequest(request), request.params.name) }),
  );
}
