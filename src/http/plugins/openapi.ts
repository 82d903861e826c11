import swagger from "@fastify/swagger";
import type { FastifyContextConfig, FastifyInstance } from "fastify";
import { docsPage, docsPolicy } from "../docs-page.ts";
import { speaksAnthropic } from "../anthropic-clients.ts";
import { anthropicErrorSchema, chatErrorSchema, errorSchema } from "../schemas/errors.ts";
import type { z } from "zod";
import { jsonSchemaTransform, serializerCompiler, validatorCompiler } from "fastify-type-provider-zod";

/** Routes validate by zod schemas; GET /openapi.json, and /docs to read, are generated from the same ones. */
export async function registerOpenapi(app: FastifyInstance, version: string): Promise<void> {
  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(serializerCompiler);
  await app.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: { title: "deepseek-proxy", version, description: "Many people, a few LLM accounts, exact bills." },
      components: { securitySchemes: { bearer: { type: "http", scheme: "bearer", bearerFormat: "JWT" } } },
      security: [{ bearer: [] }],
    },
    transform: (input) => {
      const { config } = input.route;
      const isPublic = config?.access === "public";
      const response = { ...errorsOf(input.url, config), ...(input.schema.response as object | undefined) };
      const transformed = jsonSchemaTransform({ ...input, schema: { ...input.schema, response } });
      const { url, schema } = transformed;
      return { schema: isPublic ? { ...schema, security: [] } : schema, url };
    },
  });
  app.get("/openapi.json", { config: { access: "public" }, schema: { hide: true } }, () => app.swagger());

  let page: string | undefined;
  app.get("/docs", { config: { access: "public" }, schema: { hide: true } }, (_request, reply) => {
    // Once: the routes stay as they are.
    page ??= docsPage(app.swagger() as Parameters<typeof docsPage>[0]);
    return reply.type("text/html; charset=utf-8").header("content-security-policy", docsPolicy).send(page);
  });
}

/** The errors that a route has beside those that it names: without a token, and whatever else. */
function errorsOf(url: string, config: FastifyContextConfig = {}): Readonly<Record<string, z.ZodType>> {
  const asksProvider = config.keepBytes === true;
  const body = speaksAnthropic(url, {}) ? anthropicErrorSchema : asksProvider ? chatErrorSchema : errorSchema;
  return config.access === "public" ? { "4xx": body, "5xx": body } : { 401: body, "4xx": body, "5xx": body };
}
