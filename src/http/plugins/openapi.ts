import swagger from "@fastify/swagger";
import type { FastifyContextConfig, FastifyInstance } from "fastify";
import { docsPage, docsPolicy } from "../docs-page.ts";
import { speaksAnthropic } from "../anthropic-clients.ts";
import { anthropicErrorSchema, chatErrorSchema, errorSchema } from "../schemas/errors.ts";
import { z } from "zod";
import {
  createJsonSchemaTransform,
  createJsonSchemaTransformObject,
  serializerCompiler,
  validatorCompiler,
} from "fastify-type-provider-zod";

/** Routes validate by zod schemas; GET /openapi.json, and /docs to read, are generated from the same ones. */
export async function registerOpenapi(app: FastifyInstance, version: string): Promise<void> {
  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(serializerCompiler);
  // Shown once and referred to: the same errors stand at every route.
  const schemaRegistry = z.registry<{ id: string }>();
  schemaRegistry.add(errorSchema, { id: "Error" });
  schemaRegistry.add(chatErrorSchema, { id: "ChatError" });
  schemaRegistry.add(anthropicErrorSchema, { id: "AnthropicError" });
  const options = { schemaRegistry, zodToJsonConfig: { override: plainPatterns } };
  const transform = createJsonSchemaTransform(options);
  await app.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: { title: "deepseek-proxy", version, description: "Many people, a few LLM accounts, exact bills." },
      components: { securitySchemes: { bearer: { type: "http", scheme: "bearer", bearerFormat: "JWT" } } },
      security: [{ bearer: [] }],
    },
    transformObject: createJsonSchemaTransformObject(options),
    transform: (input) => {
      const { config } = input.route;
      const isPublic = config?.access === "public";
      const response = { ...errorsOf(input.url, config), ...(input.schema.response as object | undefined) };
      const transformed = transform({ ...input, schema: { ...input.schema, response } });
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

/**
 * Leaves out patterns that say no more than the format does, or that need Unicode properties, which many programs that
 * read such documents don't know: they would refuse the whole.
 */
function plainPatterns({ jsonSchema }: { readonly jsonSchema: { format?: string; pattern?: string } }): void {
  const { format, pattern } = jsonSchema;
  if (pattern !== undefined && (format !== undefined || /\\p\{/i.test(pattern))) delete jsonSchema.pattern;
}
