import type { FastifyInstance, FastifyRequest } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import { createLastingKey } from "../../admin/group-admin.ts";
import type { PricedConfig } from "../../admin/priced-limits.ts";
import type { ApiKeys } from "../../identity/api-keys.ts";
import { AppError } from "../../errors.ts";
import type { Emit } from "../../events/catalogue.ts";
import type { Clock } from "../../lib/clock.ts";
import type { KnownModels } from "../../providers/model-list.ts";
import { chooseGroup } from "../../gateway/choose-group.ts";
import type { Groups } from "../../identity/groups.ts";
import type { Users } from "../../identity/users.ts";
import { accountOfRequest } from "../plugins/authenticate.ts";
import { errorSchema } from "../schemas/errors.ts";
import {
  keyBody,
  listedKeyResponse,
  newKeyResponse,
  toKeySettings,
  toListedKeyResponse,
  toNewKeyResponse,
} from "../schemas/keys.ts";

const keysResponse = z.object({ keys: z.array(listedKeyResponse) });

interface KeyRouteOptions {
  readonly apiKeys: ApiKeys;
  readonly users: Pick<Users, "get">;
  readonly groups: Pick<Groups, "get" | "ofUser">;
  /** The names known now. */
  readonly knownModels: () => KnownModels;
  /** The config in force. */
  readonly config: () => PricedConfig;
  readonly emit: Emit;
  readonly clock: Clock;
}

/** GET, POST and DELETE /auth/keys: long-lived keys for programs that can't log in. */
export function registerKeyRoutes(app: FastifyInstance, options: KeyRouteOptions): void {
  const { apiKeys, users, groups, knownModels, config, emit, clock } = options;
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const tags = ["auth"];

  const emitKeyEvent = (
    request: FastifyRequest,
    type: "api_key.created" | "api_key.revoked",
    subject: string,
  ): void => {
    const { username: user } = accountOfRequest(request);
    emit({ type, at: clock.now(), traceId: request.id, ip: request.ip, user, subject });
  };

  routes.get(
    "/auth/keys",
    { schema: { summary: "My API keys", tags, response: { 200: keysResponse } } },
    async (request) => ({
      keys: (await apiKeys.list(accountOfRequest(request).username)).map(toListedKeyResponse),
    }),
  );

  routes.post(
    "/auth/keys",
    {
      schema: {
        summary: "Create an API key",
        tags,
        body: keyBody,
        response: { 201: newKeyResponse, 400: errorSchema, 403: errorSchema, 409: errorSchema },
      },
    },
    async (request, reply) => {
      const settings = toKeySettings(request.body, knownModels(), clock.now());
      const account = accountOfRequest(request);
      // Nobody gets a key of a group that it could not be used in.
      if (settings.group !== undefined) {
        await chooseGroup({ groupHeader: null, apiKey: { group: settings.group }, account }, groups);
      }
      const created = await createLastingKey({ users, groups, apiKeys, config }, account, settings);
      emitKeyEvent(request, "api_key.created", created.key.id);
      return reply.code(201).header("cache-control", "no-store").send(toNewKeyResponse(created));
    },
  );

  routes.delete(
    "/auth/keys/:id",
    {
      schema: {
        summary: "Revoke an API key",
        tags,
        params: z.object({ id: z.string().max(64) }),
        response: { 204: z.null().describe("Done."), 404: errorSchema },
      },
    },
    async (request, reply) => {
      const { id } = request.params;
      if (!(await apiKeys.revoke(accountOfRequest(request).username, id))) {
        throw new AppError("not_found", { message: "You have no such API key." });
      }
      emitKeyEvent(request, "api_key.revoked", id);
      return reply.code(204).send(null);
    },
  );
}
