import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";

const configResponse = z.object({
  config: z.record(z.string(), z.unknown()).describe("As in config.toml, with all defaults; secrets are masked."),
});

/** GET /admin/config: the config in force. */
export function registerConfigRoute(app: FastifyInstance, config: () => object): void {
  app.withTypeProvider<ZodTypeProvider>().get(
    "/admin/config",
    {
      config: { access: "admin" },
      schema: { summary: "The config in force", tags: ["admin"], response: { 200: configResponse } },
    },
    () => ({ config: maskConfig(config()) }),
  );
}

const mask = "***";

/**
 * The config as administrators see it. Secrets have no place in it, but URLs can contain them: user names, passwords
 * and queries are masked in all URLs, and the path too in the webhook's, where it is the credential.
 */
function maskConfig(config: object): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(config).map(([key, value]) => [key, masked(key, value)]));
}

function masked(key: string, value: unknown): unknown {
  if (typeof value === "string") return maskUrl(value, key === "webhook_url");
  if (Array.isArray(value)) return value.map((inner) => masked(key, inner));
  return isTable(value) ? maskConfig(value) : value;
}

function maskUrl(text: string, hidePath: boolean): string {
  if (!/^https?:/i.test(text) || !URL.canParse(text)) return text;
  const url = new URL(text);
  const user = url.username === "" && url.password === "" ? "" : `${mask}@`;
  const path = hidePath && url.pathname !== "/" ? `/${mask}` : url.pathname;
  const rest = url.search === "" && url.hash === "" ? "" : `?${mask}`;
  return `${url.protocol}//${user}${url.host}${path}${rest}`;
}

/** Dates are left unchanged. */
function isTable(value: unknown): value is object {
  return typeof value === "object" && value !== null && !(value instanceof Date);
}
