import type { FastifyInstance, FastifyReply } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import { type GroupAdmin, groupEtag } from "../../admin/group-admin.ts";
import type { QuotaAdmin } from "../../admin/quota-admin.ts";
import { adjustRequest, resetRequest } from "../../admin/quota-requests.ts";
import type { CreatedApiKey } from "../../identity/api-keys.ts";
import type { Group } from "../../identity/groups.ts";
import type { Clock } from "../../lib/clock.ts";
import type { KnownModels } from "../../providers/model-list.ts";
import { type GroupUsage, groupUsageQuery } from "../routes/group-usage.ts";
import { errorSchema } from "../schemas/errors.ts";
import { groupPatchBody, groupResponse, newGroupBody, toGroupResponse, wholeGroupResponse } from "../schemas/groups.ts";
import { keyBody, newKeyResponse, toKeySettings, toNewKeyResponse } from "../schemas/keys.ts";
import { checkModelNames } from "../schemas/model-names.ts";
import { limitResponse, toLimitResponse } from "../schemas/quota.ts";
import { usageResponse } from "../schemas/usage.ts";
import { actorOfRequest, ifMatchOf, userParams } from "./admin-request.ts";

export interface GroupRouteOptions {
  readonly groups: GroupAdmin;
  readonly quota: QuotaAdmin;
  readonly groupUsage: GroupUsage;
  /** The names known now. */
  readonly knownModels: () => KnownModels;
  readonly clock: Clock;
}

const groupParams = z.object({ name: z.string().max(32).describe("The group's name.") });
const memberParams = groupParams.extend({ user: z.string().max(32) });
const quotaResponse = z.object({ group: z.string(), limits: z.array(limitResponse) });
const newUserKeyResponse = newKeyResponse.extend({ user: z.string().describe("Whose key it is.") });
const groupKeyBody = keyBody.omit({ group: true }).extend({
  user: z.string().optional().describe("A member. Default: the service account of the group, made if there is none."),
});

/**
 * /admin/groups, and the keys that administrators make. A group has an ETag; with If-Match a change is refused if the
 * group has been changed in between.
 */
export function registerGroupRoutes(app: FastifyInstance, options: GroupRouteOptions): void {
  const { groups, quota, groupUsage, knownModels, clock } = options;
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const config = { access: "admin" } as const;
  const tags = ["admin"];
  const refusals = { 400: errorSchema, 404: errorSchema, 409: errorSchema, 503: errorSchema };
  const meant = { ...refusals, 412: errorSchema };
  const gone = { 204: z.null().describe("Done."), ...refusals };
  const ofGroup = <Body extends z.ZodType>(summary: string, body: Body) => ({
    summary,
    tags,
    params: groupParams,
    response: { 200: body, ...refusals },
  });
  const ofMember = (summary: string) => ({ summary, tags, params: memberParams, response: { ...gone, ...meant } });
  const ofKey = (summary: string) => ({ summary, tags, response: { 201: newUserKeyResponse, ...refusals } });

  /** The group, with its ETag in the header. */
  const whole = (reply: FastifyReply, group: Group) => {
    reply.header("etag", groupEtag(group));
    return { ...toGroupResponse(group), users: [...group.members] };
  };
  const checkNames = (
    { models, rates }: Pick<z.output<typeof groupPatchBody>, "models" | "rates">,
    before?: Pick<Group, "models" | "rates">,
  ): void => {
    checkModelNames(models, knownModels(), "models", before?.models ?? undefined);
    const limited = before?.rates.flatMap((rate) => rate.models ?? []);
    rates?.forEach((rate, index) => {
      checkModelNames(rate.models, knownModels(), `rates.${index}.models`, limited);
    });
  };
  const quotaOf = async (group: Group) => {
    return { group: group.name, limits: (await quota.ofGroup(group)).map(toLimitResponse) };
  };
  const sendKey = (reply: FastifyReply, created: CreatedApiKey & { readonly user: string }) =>
    reply
      .code(201)
      .header("cache-control", "no-store")
      .send({ ...toNewKeyResponse(created), user: created.user });

  const list = z.object({ groups: z.array(groupResponse) });
  routes.get("/admin/groups", { config, schema: { summary: "Groups", tags, response: { 200: list } } }, async () => ({
    groups: (await groups.list()).map(toGroupResponse),
  }));

  routes.post(
    "/admin/groups",
    {
      config,
      schema: {
        summary: "Create a group",
        tags,
        body: newGroupBody,
        response: { 201: wholeGroupResponse, ...refusals },
      },
    },
    async (request, reply) => {
      const { name, ...fields } = request.body;
      checkNames(fields);
      return reply.code(201).send(whole(reply, await groups.create(actorOfRequest(request), name, fields)));
    },
  );

  routes.get(
    "/admin/groups/:name",
    { config, schema: ofGroup("A group", wholeGroupResponse) },
    async ({ params }, reply) => whole(reply, await groups.get(params.name)),
  );

  const patchSchema = ofGroup("Change a group", wholeGroupResponse);
  routes.patch(
    "/admin/groups/:name",
    {
      config,
      schema: { ...patchSchema, body: groupPatchBody, response: { ...patchSchema.response, ...meant } },
    },
    async (request, reply) => {
      const { params, body } = request;
      checkNames(body, await groups.get(params.name));
      return whole(reply, await groups.change(actorOfRequest(request), params.name, body, ifMatchOf(request)));
    },
  );

  routes.delete(
    "/admin/groups/:name",
    { config, schema: { summary: "Remove a group", tags, params: groupParams, response: { ...gone, ...meant } } },
    async (request, reply) => {
      await groups.remove(actorOfRequest(request), request.params.name, ifMatchOf(request));
      return reply.code(204).send(null);
    },
  );

  routes.put(
    "/admin/groups/:name/members/:user",
    { config, schema: ofMember("Add a member") },
    async (request, reply) => {
      const { name, user } = request.params;
      await groups.addMember(actorOfRequest(request), name, user, ifMatchOf(request));
      return reply.code(204).send(null);
    },
  );

  routes.delete(
    "/admin/groups/:name/members/:user",
    { config, schema: ofMember("Take a member out") },
    async (request, reply) => {
      const { name, user } = request.params;
      await groups.removeMember(actorOfRequest(request), name, user, ifMatchOf(request));
      return reply.code(204).send(null);
    },
  );

  routes.get(
    "/admin/groups/:name/quota",
    { config, schema: ofGroup("A group's quota", quotaResponse) },
    async ({ params }) => quotaOf(await groups.get(params.name)),
  );

  routes.post(
    "/admin/groups/:name/quota/adjust",
    {
      config,
      schema: { ...ofGroup("Change what counts as used in a group", quotaResponse), body: adjustRequest },
    },
    async (request) => {
      const group = await groups.get(request.params.name);
      await quota.adjustGroup(actorOfRequest(request), group, request.body);
      return quotaOf(group);
    },
  );

  routes.post(
    "/admin/groups/:name/quota/reset",
    { config, schema: { ...ofGroup("Restart a running period of a group", quotaResponse), body: resetRequest } },
    async (request) => {
      const group = await groups.get(request.params.name);
      await quota.resetGroup(actorOfRequest(request), group, request.body);
      return quotaOf(group);
    },
  );

  routes.get(
    "/admin/groups/:name/usage",
    { config, schema: { ...ofGroup("A group's usage", usageResponse), querystring: groupUsageQuery } },
    async ({ params, query }) => groupUsage(await groups.get(params.name), query),
  );

  routes.post(
    "/admin/groups/:name/keys",
    { config, schema: { ...ofKey("Create an API key of a group"), params: groupParams, body: groupKeyBody } },
    async (request, reply) => {
      const { user, ...body } = request.body;
      const settings = toKeySettings(body, knownModels(), clock.now());
      return sendKey(reply, await groups.createGroupKey(actorOfRequest(request), request.params.name, user, settings));
    },
  );

  routes.post(
    "/admin/users/:name/keys",
    { config, schema: { ...ofKey("Create an API key of a user"), params: userParams, body: keyBody } },
    async (request, reply) => {
      const settings = toKeySettings(request.body, knownModels(), clock.now());
      return sendKey(reply, await groups.createKey(actorOfRequest(request), request.params.name, settings));
    },
  );
}
