import type { FastifyInstance, FastifyRequest } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import { AppError } from "../../errors.ts";
import type { Admission } from "../../gateway/admission.ts";
import type { Groups } from "../../identity/groups.ts";
import type { ModelList } from "../../providers/model-list.ts";
import { groupOfRequest } from "../group-of-request.ts";
import { accountOfRequest } from "../plugins/authenticate.ts";
import { speaksAnthropic } from "../anthropic-clients.ts";
import { anthropicModel, anthropicModelList, model, modelList } from "../schemas/models.ts";

type Listed = Awaited<ReturnType<ModelList["list"]>>[number];

/** No provider reports when a model was created. Anthropic's clients get the epoch then, as its documents specify. */
const unknownDate = "1970-01-01T00:00:00Z";

interface ModelRouteOptions {
  readonly models: ModelList;
  readonly groups: Pick<Groups, "get" | "ofUser">;
  readonly policy: () => { readonly admission: Admission };
}

/**
 * The models that a caller may use, as a list and one by one, in the format of the caller's SDK family: chat apps and
 * SDKs of both look below /v1, and some omit it.
 */
export function registerModelRoutes(app: FastifyInstance, options: ModelRouteOptions): void {
  const { models, groups, policy } = options;
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const config = { access: "api_key" as const };
  const tags = ["chat"];

  async function listedFor(request: FastifyRequest): Promise<readonly Listed[]> {
    const group = await groupOfRequest(request, groups);
    const user = { apiKey: request.apiKey, account: accountOfRequest(request), group };
    const { admission } = policy();
    return (await models.list()).filter(({ id }) => admission.allowsModel(user, id));
  }

  for (const path of ["/models", "/v1/models", "/anthropic/v1/models"]) {
    routes.get(
      path,
      {
        config,
        schema: {
          summary: "Available models",
          description: "In Anthropic's shape where the request has an `anthropic-version`.",
          tags,
          response: { 200: z.union([modelList, anthropicModelList]) },
        },
      },
      async (request) => {
        const listed = await listedFor(request);
        if (!isAnthropic(request)) return { object: "list" as const, data: listed.map(toModel) };
        const data = listed.map(toAnthropicModel);
        return { data, has_more: false as const, first_id: data[0]?.id ?? null, last_id: data.at(-1)?.id ?? null };
      },
    );
    routes.get(
      `${path}/:id`,
      {
        config,
        schema: {
          summary: "A model",
          tags,
          params: z.object({ id: z.string() }),
          response: { 200: z.union([model, anthropicModel]) },
        },
      },
      async (request) => {
        const { id } = request.params;
        const found = (await listedFor(request)).find((one) => one.id === id);
        if (found !== undefined) return isAnthropic(request) ? toAnthropicModel(found) : toModel(found);
        const message = `No model here is called ${JSON.stringify(id.slice(0, 100))}. GET ${path} lists them.`;
        throw new AppError("model_not_found", { param: "model", message });
      },
    );
  }
}

function isAnthropic({ raw: { url = "" }, headers }: FastifyRequest): boolean {
  return speaksAnthropic(url, headers);
}

function toModel({ id, ownedBy }: Listed): z.input<typeof model> {
  return { id, object: "model", created: 0, owned_by: ownedBy };
}

function toAnthropicModel({ id }: Listed): z.input<typeof anthropicModel> {
  return { type: "model", id, display_name: id, created_at: unknownDate };
}
