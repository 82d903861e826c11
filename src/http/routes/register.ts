import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { Registrations } from "../../admin/registrations.ts";
import { originOfRequest } from "../plugins/authenticate.ts";
import { errorSchema } from "../schemas/errors.ts";

const registerBody = z.strictObject({
  code: z.string().min(1).max(200).describe("An invitation, from an administrator."),
  username: z
    .string()
    .max(1024)
    .describe("1 to 32 lower-case letters, digits, - and _, beginning with a letter or digit."),
  password: z.string().max(4096).describe("8 to 1024 bytes, and not a common password."),
});

const registerResponse = z.object({ user: z.string(), tier: z.string() });

/** POST /auth/register. */
export function registerRegistrationRoute(app: FastifyInstance, registrations: Registrations): void {
  app.withTypeProvider<ZodTypeProvider>().post(
    "/auth/register",
    {
      config: { access: "public", sheds: true },
      schema: {
        summary: "Register with an invitation code",
        description: "Makes a user, who then logs in. Only where `security.registration` is `invitation`.",
        tags: ["auth"],
        body: registerBody,
        response: {
          201: registerResponse,
          400: errorSchema,
          403: errorSchema,
          409: errorSchema,
          429: errorSchema,
          503: errorSchema,
        },
      },
    },
    async (request, reply) => {
      const { code, username, password } = request.body;
      const origin = originOfRequest(request);
      const account = await registrations.register({ code, username, password, origin });
      reply.header("cache-control", "no-store");
      return reply.code(201).send({ user: account.username, tier: account.quota_tier });
    },
  );
}
