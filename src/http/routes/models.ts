import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import type { ModelList } from "../../upstream/providers/model-list.ts";
import { modelList } from "../schemas/chat.ts";

/** GET /models and /v1/models: chat apps ask for either. */
export function registerModelRoutes(app: FastifyInstance, models: ModelList): void {
  for (const path of ["/models", "/v1/models"]) {
    app.withTypeProvider<ZodTypeProvider>().get(
      path,
      {
        config: { access: "api_key" },
        schema: { summary: "Models that can be asked", tags: ["chat"], response: { 200: modelList } },
      },
      async ({ apiKey }) => {
        const all = await models.list();
        const listed = apiKey === null ? all : all.filter(({ id }) => apiKey.allowsModel(id));
        const data = listed.map(({ id, ownedBy }) => ({
          id,
          object: "model" as const,
          created: 0,
          owned_by: ownedBy,
        }));
        return { object: "list" as const, data };
      },
    );
  }
}
