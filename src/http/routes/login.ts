import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { LoginRequest, LoginResult } from "../../accounts/login.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorSchema } from "../schemas/errors.ts";

const loginBody = z.object({
  username: z.string().max(1024),
  // Longer than any password: those are measured in bytes, by the password check itself.
  password: z.string().max(4096),
});

const loginAnswer = z.object({
  token: z.string().describe("The access token."),
  access_token: z.string().describe("The same again, under OAuth's name for it."),
  token_type: z.literal("Bearer"),
  expires_in: z.int().describe("Seconds."),
});

/** POST /auth/login. */
export function registerLoginRoute(
  app: FastifyInstance,
  options: { readonly login: (request: LoginRequest) => Promise<LoginResult>; readonly clock: Clock },
): void {
  app.withTypeProvider<ZodTypeProvider>().post(
    "/auth/login",
    {
      config: { access: "public" },
      schema: {
        summary: "Log in",
        tags: ["auth"],
        body: loginBody,
        response: { 200: loginAnswer, 400: errorSchema, 401: errorSchema, 403: errorSchema, 429: errorSchema },
      },
    },
    async (request, reply) => {
      const { username, password } = request.body;
      request.reported = true;
      const { token, expiresAt } = await options.login({ username, password, ip: request.ip, traceId: request.id });
      reply.header("cache-control", "no-store");
      const expiresIn = Math.max(0, Math.floor((expiresAt - options.clock.now()) / 1000));
      return { token, access_token: token, token_type: "Bearer" as const, expires_in: expiresIn };
    },
  );
}
