import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import { maskConfig } from "../../admin/masked-config.ts";

const configAnswer = z.object({
  config: z.record(z.string(), z.unknown()).describe("As config.toml has it, with all defaults; secrets are masked."),
});

/** GET /admin/config: what is in force. */
export function registerConfigRoute(app: FastifyInstance, config: object): void {
  app.withTypeProvider<ZodTypeProvider>().get(
    "/admin/config",
    {
      config: { access: "admin" },
      schema: { summary: "The config in force", tags: ["admin"], response: { 200: configAnswer } },
    },
    () => ({ config: maskConfig(config) }),
  );
}
