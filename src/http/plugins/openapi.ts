import swagger from "@fastify/swagger";
import type { FastifyInstance } from "fastify";
import { docsPage, docsPolicy } from "../docs-page.ts";
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
      const { schema, url } = jsonSchemaTransform(input);
      const isPublic = input.route.config?.access === "public";
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
