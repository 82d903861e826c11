import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { ConfigOperations } from "../../admin/config-operations.ts";
import { errorSchema } from "../schemas/errors.ts";
import { actorOfRequest, isoTime } from "./admin-request.ts";

const restartNeeded = z
  .array(z.string())
  .describe("Paths that differ in the file and only come into force with a restart.");

const configResponse = z.object({
  config: z.record(z.string(), z.unknown()).describe("As in config.toml, with all defaults; secrets are masked."),
  loaded_at: z.iso.datetime().describe("When it came into force, or was found unchanged."),
  restart_needed: restartNeeded,
  invalid: z
    .object({ since: z.iso.datetime(), error: z.string() })
    .nullable()
    .describe("The problem of the file; null if the file is in force."),
});

const reloadResponse = z.object({
  ok: z.literal(true),
  changes: z
    .array(z.object({ path: z.string(), before: z.unknown(), after: z.unknown() }))
    .describe("What has come into force, the first 200; secrets are masked."),
  restart_needed: restartNeeded,
});

/** GET /admin/config: the config in force. POST /admin/config/reload: reads the file again now. */
export function registerConfigRoutes(app: FastifyInstance, operations: ConfigOperations): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const config = { access: "admin" } as const;
  const tags = ["admin"];

  routes.get(
    "/admin/config",
    { config, schema: { summary: "The config in force", tags, response: { 200: configResponse } } },
    () => {
      const { config: shown, status } = operations.current();
      const { loadedAt, invalid, restartNeeded: paths } = status;
      return {
        config: shown,
        loaded_at: isoTime(loadedAt),
        restart_needed: [...paths],
        invalid: invalid === null ? null : { since: isoTime(invalid.since), error: invalid.error },
      };
    },
  );

  routes.post(
    "/admin/config/reload",
    {
      config,
      schema: {
        summary: "Reload the config file",
        tags,
        body: z.strictObject({}).nullish(),
        response: { 200: reloadResponse, 422: errorSchema },
      },
    },
    async (request) => {
      const { changes, restartNeeded: paths } = await operations.reload(actorOfRequest(request));
      return { ok: true as const, changes: [...changes], restart_needed: [...paths] };
    },
  );
}
