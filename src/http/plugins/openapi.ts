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

/** Routes validate with zod schemas; GET /openapi.json and the readable /docs are generated from the same ones. */
export async function registerOpenapi(app: FastifyInstance, version: string): Promise<void> {
  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(serializerCompiler);
  // Defined once and referenced: every route has the same errors.
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
      components: {
        securitySchemes: {
          bearer: {
            ...{ type: "http", scheme: "bearer", bearerFormat: "JWT" },
            description:
              "The `access_token` of `POST /auth/login`, or, for chats, models and usage, an API key (`dsp_...`), which " +
              "`api-key` and `x-api-key` may hold as well.",
          },
          panel: {
            ...{ type: "apiKey", in: "cookie", name: "__Host-panel" },
            description: "The cookie of `POST /panel/api/login`, from the panel's own pages.",
          },
        },
      },
      security: [{ bearer: [] }, { panel: [] }],
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
    // Rendered once: the routes don't change.
    page ??= docsPage(app.swagger() as Parameters<typeof docsPage>[0]);
    return reply.type("text/html; charset=utf-8").header("content-security-policy", docsPolicy).send(page);
  });
}

/** The errors that every route has in addition to its own: 401 unless public, and any other. */
function errorsOf(url: string, config: FastifyContextConfig = {}): Readonly<Record<string, z.ZodType>> {
  const callsProvider = config.keepBytes === true;
  const body = speaksAnthropic(url, {}) ? anthropicErrorSchema : callsProvider ? chatErrorSchema : errorSchema;
  return config.access === "public" ? { "4xx": body, "5xx": body } : { 401: body, "4xx": body, "5xx": body };
}

/**
 * Drops patterns that only repeat the format, or that need Unicode properties: many readers of such documents don't
 * support those and would reject the whole document.
 */
function plainPatterns({ jsonSchema }: { readonly jsonSchema: { format?: string; pattern?: string } }): void {
  const { format, pattern } = jsonSchema;
  if (pattern !== undefined && (format !== undefined || /\\p\{/i.test(pattern))) delete jsonSchema.pattern;
}
