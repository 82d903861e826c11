import type { FastifyInstance, FastifyReply } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { Account } from "../../identity/account-schema.ts";
import type { UserAdmin } from "../../admin/user-admin.ts";
import { userEtag } from "../../admin/user-view.ts";
import type { Clock } from "../../lib/clock.ts";
import type { KnownModels } from "../../providers/model-list.ts";
import { errorSchema } from "../schemas/errors.ts";
import { checkModelNames } from "../schemas/model-names.ts";
import { actorOfRequest, ifMatchOf, userParams } from "./admin-request.ts";
import {
  emptyBody,
  newUserResponse,
  newUserBody,
  resetResponse,
  toUserResponse,
  userResponse,
  userPatchBody,
  usersResponse,
  usersQuery,
} from "./user-schema.ts";

export interface UserRouteOptions {
  readonly userAdmin: UserAdmin;
  /** The names known now. */
  readonly knownModels: () => KnownModels;
  readonly clock: Clock;
}

/**
 * The users under /admin/users. Responses carry the user's ETag; with If-Match a change is refused if the user has been
 * changed in between.
 */
export function registerUserRoutes(app: FastifyInstance, options: UserRouteOptions): void {
  const { userAdmin, knownModels, clock } = options;
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const config = { access: "admin" } as const;
  const tags = ["admin"];
  const refusals = { 400: errorSchema, 404: errorSchema, 409: errorSchema, 412: errorSchema };

  const show = (account: Account) => toUserResponse(account, clock.now());
  /** The user, with its ETag in the header. */
  const withEtag = (reply: FastifyReply, account: Account) => {
    reply.header("etag", userEtag(account));
    return show(account);
  };

  routes.get(
    "/admin/users",
    {
      config,
      schema: { summary: "Users", tags, querystring: usersQuery, response: { 200: usersResponse, 400: errorSchema } },
    },
    async ({ query }) => {
      const { users, nextCursor } = await userAdmin.list(query);
      return { users: users.map(show), next_cursor: nextCursor };
    },
  );

  routes.post(
    "/admin/users",
    {
      config,
      schema: {
        summary: "Create a user",
        tags,
        body: newUserBody,
        response: { 201: newUserResponse, 400: errorSchema, 409: errorSchema },
      },
    },
    async (request, reply) => {
      checkModelNames(request.body.models, knownModels());
      const { account, password } = await userAdmin.create(actorOfRequest(request), request.body);
      reply.code(201).header("location", `/admin/users/${account.username}`).header("cache-control", "no-store");
      return { ...withEtag(reply, account), ...(password === undefined ? {} : { password }) };
    },
  );

  routes.get(
    "/admin/users/:name",
    { config, schema: { summary: "A user", tags, params: userParams, response: { 200: userResponse, ...refusals } } },
    async ({ params }, reply) => withEtag(reply, await userAdmin.get(params.name)),
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
        response: { 200: userResponse, ...refusals },
      },
    },
    async (request, reply) => {
      const { params, body } = request;
      const { models } = await userAdmin.get(params.name);
      checkModelNames(body.models, knownModels(), "models", models);
      return withEtag(reply, await userAdmin.patch(actorOfRequest(request), params.name, body, ifMatchOf(request)));
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
        response: { 200: resetResponse, ...refusals },
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
      return { ...withEtag(reply, account), password };
    },
  );

  routes.delete(
    "/admin/users/:name/second-factor",
    {
      config,
      schema: {
        summary: "Remove a user's second factor",
        description: "For who has lost it: the password alone logs in again.",
        tags,
        params: userParams,
        querystring: z.strictObject({
          reason: z.string().trim().max(500).optional().describe("For the audit log."),
        }),
        response: { 204: z.null().describe("Done."), ...refusals },
      },
    },
    async (request, reply) => {
      const { params, query } = request;
      await userAdmin.removeSecondFactor(actorOfRequest(request), params.name, query.reason);
      return reply.code(204).send(null);
    },
  );
}
