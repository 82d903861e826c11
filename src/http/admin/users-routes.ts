import type { FastifyInstance, FastifyReply } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { Account } from "../../identity/account-schema.ts";
import type { UserAdmin } from "../../admin/user-admin.ts";
import { userEtag } from "../../admin/user-view.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorSchema } from "../schemas/errors.ts";
import { actorOfRequest, ifMatchOf, userParams } from "./admin-request.ts";
import {
  emptyBody,
  newUserAnswer,
  newUserBody,
  resetAnswer,
  toUserAnswer,
  userAnswer,
  userPatchBody,
  usersAnswer,
  usersQuery,
} from "./user-schema.ts";

export interface UserRouteOptions {
  readonly userAdmin: UserAdmin;
  readonly clock: Clock;
}

/**
 * The users under /admin/users. Answers carry the user's ETag; with If-Match a change is refused where somebody else
 * has made one in between.
 */
export function registerUserRoutes(app: FastifyInstance, { userAdmin, clock }: UserRouteOptions): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const config = { access: "admin" } as const;
  const tags = ["admin"];
  const refusals = { 400: errorSchema, 404: errorSchema, 409: errorSchema, 412: errorSchema };

  const show = (account: Account) => toUserAnswer(account, clock.now());
  /** With the ETag in the header. */
  const answer = (reply: FastifyReply, account: Account) => {
    reply.header("etag", userEtag(account));
    return show(account);
  };

  routes.get(
    "/admin/users",
    {
      config,
      schema: { summary: "Users", tags, querystring: usersQuery, response: { 200: usersAnswer, 400: errorSchema } },
    },
    ({ query }) => {
      const { users, nextCursor } = userAdmin.list(query);
      return { users: users.map(show), next_cursor: nextCursor };
    },
  );

  routes.post(
    "/admin/users",
    {
      config,
      schema: {
        summary: "Make a user",
        tags,
        body: newUserBody,
        response: { 201: newUserAnswer, 400: errorSchema, 409: errorSchema },
      },
    },
    async (request, reply) => {
      const { account, password } = await userAdmin.create(actorOfRequest(request), request.body);
      reply.code(201).header("location", `/admin/users/${account.username}`).header("cache-control", "no-store");
      return { ...answer(reply, account), ...(password === undefined ? {} : { password }) };
    },
  );

  routes.get(
    "/admin/users/:name",
    { config, schema: { summary: "A user", tags, params: userParams, response: { 200: userAnswer, ...refusals } } },
    ({ params }, reply) => answer(reply, userAdmin.get(params.name)),
  );

  routes.patch(
    "/admin/users/:name",
    {
      config,
      schema: {
        summary: "Change a user",
        tags,
        params: userParams,
        body: userPatchBody,
        response: { 200: userAnswer, ...refusals },
      },
    },
    async (request, reply) => {
      const { params, body } = request;
      return answer(reply, await userAdmin.patch(actorOfRequest(request), params.name, body, ifMatchOf(request)));
    },
  );

  routes.delete(
    "/admin/users/:name",
    {
      config,
      schema: {
        summary: "Archive a user",
        description: "Sessions and keys end. The file is kept aside; usage and used quota stay with the name.",
        tags,
        params: userParams,
        response: { 204: z.null().describe("Done."), ...refusals },
      },
    },
    async (request, reply) => {
      await userAdmin.archive(actorOfRequest(request), request.params.name, ifMatchOf(request));
      return reply.code(204).send(null);
    },
  );

  routes.post(
    "/admin/users/:name/reset-password",
    {
      config,
      schema: {
        summary: "Give a user a one-time password",
        description: "It must be changed at the next login. Ends the user's sessions.",
        tags,
        params: userParams,
        body: emptyBody,
        response: { 200: resetAnswer, ...refusals },
      },
    },
    async (request, reply) => {
      const { name } = request.params;
      const { account, password = "" } = await userAdmin.resetPassword(
        actorOfRequest(request),
        name,
        ifMatchOf(request),
      );
      reply.header("cache-control", "no-store");
      return { ...answer(reply, account), password };
    },
  );
}
