import { Readable } from "node:stream";
import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import { AppError } from "../../errors.ts";
import type { Ledger } from "../../quota/ledger.ts";
import { exportUsage } from "../../quota/usage/usage-export.ts";
import { exportFormats, exportText } from "../../quota/usage/usage-export-text.ts";
import { createZone, momentSchema, spanOfMoments } from "../../quota/zone.ts";
import { errorSchema } from "../schemas/errors.ts";

const userName = /^[a-z0-9][a-z0-9_-]{0,31}$/;
const word = z.string().min(1).max(256).optional();
const exportQuery = z.strictObject({
  format: z.enum(exportFormats).default("ndjson"),
  from: momentSchema.optional().describe("First day, in the quota's time zone, or the first instant included."),
  to: momentSchema.optional().describe("Last day, or the first instant excluded."),
  user: z.string().regex(userName, "expected a user name").optional(),
  group: z.string().regex(userName, "expected a group's name").optional(),
  key_id: word.describe("Id of an API key."),
  model: word.describe("The model that the client asked for."),
  provider: word.describe("The provider that answered."),
});

export interface UsageExportOptions {
  readonly ledger: Pick<Ledger, "recorded">;
  /** quota.timezone. */
  readonly timezone: string;
}

/** Each takes a part of the event loop's time for as long as its client reads. */
const maxExports = 4;

/** GET /admin/usage/export: a line for each charged request and each change by hand, from the journal and its archive. */
export function registerUsageExport(app: FastifyInstance, { ledger, timezone }: UsageExportOptions): void {
  const zone = createZone(timezone);
  let running = 0;

  app.withTypeProvider<ZodTypeProvider>().get(
    "/admin/usage/export",
    {
      config: { access: "admin" },
      schema: {
        summary: "Each request that was charged, for checking bills",
        description:
          "Rows of requests that are settled come in the order of their ends, then those that are not. The last line has " +
          "`end` and the number of rows, so that a cut is noticed; `complete` is false where records are missing, and then " +
          "lines of the kind `error` before it say which.",
        tags: ["admin"],
        querystring: exportQuery,
        response: {
          200: {
            description: "The rows.",
            content: {
              "application/x-ndjson": { schema: z.string().describe("A JSON object on each line.") },
              "text/csv": { schema: z.string() },
            },
          },
          400: errorSchema,
          429: errorSchema,
        },
      },
    },
    async ({ query }, reply) => {
      const { format, key_id: apiKey, user, group, model, provider } = query;
      const span = spanOfMoments(query, zone);
      if (span.from !== undefined && span.to !== undefined && span.from >= span.to)
        throw new AppError("invalid_request", {
          param: "from",
          message: `from (${query.from}) is after to (${query.to}).`,
        });
      if (running >= maxExports) {
        const message = `${maxExports} exports are running already. Try again when one has ended.`;
        throw new AppError("rate_limited", { message, retryAfterSeconds: 10 });
      }
      const items = exportUsage(ledger.recorded(), { ...span, user, group, apiKey, model, provider });
      const body = Readable.from(exportText(items, format), { highWaterMark: 2 });
      running++;
      body.once("close", () => running--);
      reply.header("cache-control", "no-store");
      reply.header("content-disposition", `attachment; filename="${fileName(query, timezone)}"`);
      reply.type(format === "csv" ? "text/csv; charset=utf-8" : "application/x-ndjson; charset=utf-8");
      // Typed to match any response schema: streams are not serialized.
      return reply.send(body as never);
    },
  );
}

/** With the filter and the zone, so that a file says what is in it. */
function fileName({ format, from, to, ...filters }: z.output<typeof exportQuery>, timezone: string): string {
  const parts = Object.entries(filters).flatMap(([name, value]) => (value === undefined ? [] : [`${name}-${value}`]));
  const name = ["requests", from ?? "begin", to ?? "now", ...parts, timezone].join("_");
  return `${name.replace(/[^\w.-]/g, "-").slice(0, 200)}.${format}`;
}
