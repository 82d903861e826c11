import type { FastifyInstance, FastifyRequest } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { PasswordChange } from "../../identity/login/change-password.ts";
import type { LoginRequest } from "../../identity/login/login.ts";
import type { Sessions } from "../../identity/sessions.ts";
import type { TokenPair, TokenPairs } from "../../identity/sessions/token-pairs.ts";
import { AppError } from "../../errors.ts";
import type { Emit } from "../../events/catalogue.ts";
import type { Clock } from "../../lib/clock.ts";
import { accountOfRequest, originOfRequest } from "../plugins/authenticate.ts";
import { loginBody, passwordBody, refreshBody, tokenResponse, toTokenResponse } from "../schemas/auth.ts";
import { errorSchema } from "../schemas/errors.ts";
import { sessionResponse, toSessionResponse } from "../schemas/sessions.ts";

const sessionsResponse = z.object({
  sessions: z.array(sessionResponse.extend({ current: z.boolean().describe("Whether this request uses it.") })),
});

interface SessionRouteOptions {
  readonly sessions: Sessions;
  readonly refresh: TokenPairs["refresh"];
  readonly emit: Emit;
  readonly clock: Clock;
}

/** Refreshes, lists and ends sessions. */
export function registerSessionRoutes(app: FastifyInstance, options: SessionRouteOptions): void {
  const { sessions, clock } = options;
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const tags = ["auth"];
  const empty = z.null().describe("Done.");

  const emitEnded = (request: FastifyRequest, user: string, subject: string): void => {
    const { ip, id: traceId } = request;
    options.emit({ type: "session.ended", at: clock.now(), traceId, ip, user, subject });
  };

  routes.post(
    "/auth/refresh",
    {
      config: { access: "public" },
      schema: {
        summary: "Exchange a refresh token for new tokens",
        tags,
        body: refreshBody,
        response: { 200: tokenResponse, 400: errorSchema, 401: errorSchema, 403: errorSchema, 503: errorSchema },
      },
    },
    async (request, reply) => {
      const pair = await options.refresh(request.body.refresh_token, originOfRequest(request));
      reply.header("cache-control", "no-store");
      return toTokenResponse(pair, clock.now());
    },
  );

  routes.post(
    "/auth/logout",
    {
      config: { access: "public" },
      schema: { summary: "End the session of a refresh token", tags, body: refreshBody, response: { 204: empty } },
    },
    async (request, reply) => {
      // An unknown or used token belongs to no session any more, which is what the caller wants.
      const ended = await sessions.endByToken(request.body.refresh_token);
      if (ended !== undefined) emitEnded(request, ended.user, ended.id);
      return reply.code(204).send(null);
    },
  );

  routes.post(
    "/auth/logout-all",
    {
      config: { beforePasswordChange: true },
      schema: { summary: "End all my sessions, including this one", tags, response: { 204: empty } },
    },
    async (request, reply) => {
      const { username } = accountOfRequest(request);
      await sessions.endAll(username);
      emitEnded(request, username, "*");
      return reply.code(204).send(null);
    },
  );

  routes.get(
    "/auth/sessions",
    { schema: { summary: "My sessions", tags, response: { 200: sessionsResponse } } },
    async (request) => ({
      sessions: (await sessions.list(accountOfRequest(request).username)).map((session) => ({
        ...toSessionResponse(session),
        current: session.id === request.sessionId,
      })),
    }),
  );

  routes.delete(
    "/auth/sessions/:id",
    {
      schema: {
        summary: "End one of my sessions",
        tags,
        params: z.object({ id: z.string().max(64) }),
        response: { 204: empty, 404: errorSchema },
      },
    },
    async (request, reply) => {
      const { username } = accountOfRequest(request);
      const { id } = request.params;
      if (!(await sessions.end(username, id)))
        throw new AppError("not_found", { message: "You have no such session." });
      emitEnded(request, username, id);
      return reply.code(204).send(null);
    },
  );
}

interface PasswordRouteOptions {
  readonly changePassword: (change: PasswordChange) => Promise<TokenPair>;
  readonly clock: Clock;
}

/** POST /auth/password: sets another password. Ends all sessions, and returns the tokens of a new one. */
export function registerPasswordRoute(app: FastifyInstance, { changePassword, clock }: PasswordRouteOptions): void {
  app.withTypeProvider<ZodTypeProvider>().post(
    "/auth/password",
    {
      config: { beforePasswordChange: true },
      schema: {
        summary: "Change my password",
        tags: ["auth"],
        body: passwordBody,
        response: { 200: tokenResponse, 400: errorSchema, 403: errorSchema, 429: errorSchema },
      },
    },
    async (request, reply) => {
      const { current_password: currentPassword, new_password: newPassword } = request.body;
      const account = accountOfRequest(request);
      const origin = originOfRequest(request);
      const pair = await changePassword({ account, currentPassword, newPassword, origin });
      reply.header("cache-control", "no-store");
      return toTokenResponse(pair, clock.now());
    },
  );
}

/** POST /auth/login. */
export function registerLoginRoute(
  app: FastifyInstance,
  options: { readonly login: (request: LoginRequest) => Promise<TokenPair>; readonly clock: Clock },
): void {
  app.withTypeProvider<ZodTypeProvider>().post(
    "/auth/login",
    {
      config: { access: "public", sheds: true },
      schema: {
        summary: "Log in",
        tags: ["auth"],
        body: loginBody,
        response: { 200: tokenResponse, 400: errorSchema, 401: errorSchema, 403: errorSchema, 429: errorSchema },
      },
    },
    async (request, reply) => {
      const { username, password, otp } = request.body;
      request.reported = true;
      const pair = await options.login({ username, password, otp, origin: originOfRequest(request) });
      reply.header("cache-control", "no-store");
      return toTokenResponse(pair, options.clock.now());
    },
  );
}
