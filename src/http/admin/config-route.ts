import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";

const configResponse = z.object({
  config: z.record(z.string(), z.unknown()).describe("As config.toml has it, with all defaults; secrets are masked."),
});

/** GET /admin/config: what is in force. */
export function registerConfigRoute(app: FastifyInstance, config: object): void {
  app.withTypeProvider<ZodTypeProvider>().get(
    "/admin/config",
    {
      config: { access: "admin" },
      schema: { summary: "The config in force", tags: ["admin"], response: { 200: configResponse } },
    },
    () => ({ config: maskConfig(config) }),
  );
}

const mask = "***";

/**
 * The config for the eyes of administrators. Secrets have no place in it, but URLs can hold them: user names, passwords
 * and queries are masked in all of them, and the path too in that of the webhook, where it is what lets one in.
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

/** Dates stay as they are. */
function isTable(value: unknown): value is object {
  return typeof value === "object" && value !== null && !(value instanceof Date);
}
