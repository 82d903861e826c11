import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { LoginRequest } from "../../accounts/login/login.ts";
import type { TokenPair } from "../../accounts/sessions/token-pairs.ts";
import type { Clock } from "../../lib/clock.ts";
import { originOfRequest } from "../plugins/access.ts";
import { tokenAnswer, toTokenAnswer } from "../schemas/auth.ts";
import { errorSchema } from "../schemas/errors.ts";

const loginBody = z.object({
  username: z.string().max(1024),
  // Longer than any password: those are measured in bytes, by the password check itself.
  password: z.string().max(4096),
});

/** POST /auth/login. */
export function registerLoginRoute(
  app: FastifyInstance,
  options: { readonly login: (request: LoginRequest) => Promise<TokenPair>; readonly clock: Clock },
): void {
  app.withTypeProvider<ZodTypeProvider>().post(
    "/auth/login",
    {
      config: { access: "public" },
      schema: {
        summary: "Log in",
        tags: ["auth"],
        body: loginBody,
        response: { 200: tokenAnswer, 400: errorSchema, 401: errorSchema, 403: errorSchema, 429: errorSchema },
      },
    },
    async (request, reply) => {
      const { username, password } = request.body;
      request.reported = true;
      const pair = await options.login({ username, password, origin: originOfRequest(request) });
      reply.header("cache-control", "no-store");
      return toTokenAnswer(pair, options.clock.now());
    },
  );
}
