import swagger from "@fastify/swagger";
import type { FastifyContextConfig, FastifyInstance, FastifyServerOptions } from "fastify";
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

/**
 * Routes are validated by zod, as their schemas are written. To be given to fastify when it is made: later it would
 * already have loaded a validator of its own, 400 modules for an eighth of the time in which the proxy starts. The types
 * of that option know fastify's own validators only.
 */
export const zodCompilers = {
  buildValidator: () => validatorCompiler,
  buildSerializer: () => serializerCompiler,
} as unknown as NonNullable<NonNullable<FastifyServerOptions["schemaController"]>["compilersFactory"]>;

/** GET /openapi.json and the readable /docs are generated from the zod schemas with which the routes validate. */
export async function registerOpenapi(app: FastifyInstance, version: string): Promise<void> {
  // Defined once and referenced: every route has the same errors.
  const schemaRegistry = z.registry<{ id: string }>();
  schemaRegistry.add(errorSchema, { id: "Error" });
  schemaRegistry.add(chatErrorSchema, { id: "ChatError" });
  schemaRegistry.add(anthropicErrorSchema, { id: "AnthropicError" });
  const options = { schemaRegistry, zodToJsonConfig: { override: finishSchema } };
  const transform = createJsonSchemaTransform(options);
  const toObject = createJsonSchemaTransformObject(options);
  /** Operations that can be called without a body. */
  const optionalBodies = new Set<string>();
  await app.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: {
        title: "deepseek-proxy",
        version,
        description: "Many people, a few LLM accounts, exact bills.",
        license: { name: "MIT", identifier: "MIT" },
      },
      servers: [{ url: "/", description: "This proxy." }],
      components: {
        securitySchemes: {
          bearer: {
            type: "http",
            scheme: "bearer",
            bearerFormat: "JWT",
            description:
              "The `access_token` of `POST /auth/login`, or, for chats, models and usage, an API key (`dsp_...`), which " +
              "`api-key` and `x-api-key` may hold as well.",
          },
          panel: {
            type: "apiKey",
            in: "cookie",
            name: "__Host-panel",
            description: "The cookie of `POST /panel/api/login`, from the panel's own pages.",
          },
        },
      },
      security: [{ bearer: [] }, { panel: [] }],
    },
    transformObject: (document) => withFinish(toObject(document) as OpenapiDocument, optionalBodies),
    transform: (input) => {
      const { config, method } = input.route;
      const isPublic = config?.access === "public";
      const { body } = input.schema;
      const response = {
        ...errorsOf(input.url, config, body !== undefined),
        ...(input.schema.response as object | undefined),
      };
      const transformed = transform({ ...input, schema: { ...input.schema, response } });
      const { url, schema } = transformed;
      const operationId = operationIdOf(String(method), input.url);
      if (body instanceof z.ZodType && body.safeParse(undefined).success) optionalBodies.add(operationId);
      return { schema: { ...schema, operationId, ...(isPublic ? { security: [] } : {}) }, url };
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

/** The errors that every route has in addition to its own: those that are known by their number, and any other. */
function errorsOf(
  url: string,
  config: FastifyContextConfig = {},
  hasBody: boolean,
): Readonly<Record<string, z.ZodType>> {
  const callsProvider = config.keepBytes === true;
  const body = speaksAnthropic(url, {}) ? anthropicErrorSchema : callsProvider ? chatErrorSchema : errorSchema;
  return {
    ...(config.access === "public" ? {} : { 401: body, 403: body }),
    ...(hasBody ? { 400: body, 413: body, 415: body } : {}),
    ...(callsProvider ? { 402: body, 404: body, 429: body, 502: body, 503: body, 504: body } : {}),
    "4xx": body,
    "5xx": body,
  };
}

/** `POST /admin/users/:name/unlock` becomes `postAdminUsersNameUnlock`: the name of a function in generated clients. */
function operationIdOf(method: string, url: string): string {
  const words = url.split(/[^A-Za-z0-9]+/).filter((word) => word !== "");
  return method.toLowerCase() + words.map((word) => word.charAt(0).toUpperCase() + word.slice(1)).join("");
}

interface OpenapiDocument {
  readonly paths?: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components?: { readonly schemas?: Record<string, unknown> };
}

interface Operation {
  readonly operationId?: string;
  readonly requestBody?: {
    required?: boolean;
    readonly content: Readonly<Record<string, { schema?: { readonly anyOf?: readonly unknown[] } }>>;
  };
}

/** Says which bodies may be absent (an explicit null is none), and drops schemas that nothing refers to. */
function withFinish(document: OpenapiDocument, optionalBodies: ReadonlySet<string>): never {
  for (const path of Object.values(document.paths ?? {})) {
    for (const { operationId = "", requestBody } of Object.values(path)) {
      if (requestBody === undefined || !optionalBodies.has(operationId)) continue;
      requestBody.required = false;
      for (const media of Object.values(requestBody.content)) {
        const [schema, nothing] = media.schema?.anyOf ?? [];
        if (isNull(nothing)) media.schema = schema as object;
      }
    }
  }
  const schemas = document.components?.schemas ?? {};
  const text = JSON.stringify(document.paths);
  for (const name of Object.keys(schemas)) {
    if (!text.includes(`"#/components/schemas/${name}"`)) Reflect.deleteProperty(schemas, name);
  }
  return document as never;
}

function isNull(schema: unknown): boolean {
  return typeof schema === "object" && schema !== null && "type" in schema && schema.type === "null";
}

interface Override {
  readonly zodSchema: z.core.$ZodType;
  readonly jsonSchema: { format?: string; pattern?: string; description?: string; examples?: unknown[] };
}

/**
 * Adds descriptions and examples, which the registry of named schemas doesn't have. Drops patterns that only repeat the
 * format, or that need Unicode properties: many readers of such documents don't support those and would reject the whole
 * document.
 */
function finishSchema({ zodSchema, jsonSchema }: Override): void {
  const { description, examples } = z.globalRegistry.get(zodSchema) ?? {};
  if (description !== undefined) jsonSchema.description ??= description;
  if (Array.isArray(examples)) jsonSchema.examples ??= examples;
  const { format, pattern } = jsonSchema;
  if (pattern !== undefined && (format !== undefined || /\\p\{/i.test(pattern))) delete jsonSchema.pattern;
}
