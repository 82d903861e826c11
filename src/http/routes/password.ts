import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { PasswordChange } from "../../accounts/login/change-password.ts";
import type { TokenPair } from "../../accounts/sessions/token-pairs.ts";
import type { Clock } from "../../lib/clock.ts";
import { accountOfRequest, originOfRequest } from "../plugins/access.ts";
import { tokenAnswer, toTokenAnswer } from "../schemas/auth.ts";
import { errorSchema } from "../schemas/errors.ts";

const passwordBody = z.object({
  current_password: z.string().max(4096),
  new_password: z.string().max(4096).describe("8 to 1024 bytes, and none of the commonest."),
});

interface PasswordRouteOptions {
  readonly changePassword: (change: PasswordChange) => Promise<TokenPair>;
  readonly clock: Clock;
}

/** POST /auth/password: set another password. Ends all sessions, and answers with the tokens of a new one. */
export function registerPasswordRoute(app: FastifyInstance, { changePassword, clock }: PasswordRouteOptions): void {
  app.withTypeProvider<ZodTypeProvider>().post(
    "/auth/password",
    {
      config: { beforePasswordChange: true },
      schema: {
        summary: "Change my password",
        tags: ["auth"],
        body: passwordBody,
        response: { 200: tokenAnswer, 400: errorSchema, 403: errorSchema, 429: errorSchema },
      },
    },
    async (request, reply) => {
      const { current_password: currentPassword, new_password: newPassword } = request.body;
      const account = accountOfRequest(request);
      const origin = originOfRequest(request);
      const pair = await changePassword({ account, currentPassword, newPassword, origin });
      reply.header("cache-control", "no-store");
      return toTokenAnswer(pair, clock.now());
    },
  );
}
