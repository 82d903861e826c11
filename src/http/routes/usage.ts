import { Readable } from "node:stream";
import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import type { z } from "zod";
import { AppError } from "../../errors.ts";
import { daysBetween, shiftDate } from "../../lib/dates.ts";
import type { Ledger, UsageSpan } from "../../quota/ledger.ts";
import { sumUsage, type UsageBy, type UsageLine } from "../../quota/usage/usage-queries.ts";
import { accountOfRequest } from "../plugins/authenticate.ts";
import { errorSchema } from "../schemas/errors.ts";
import { myUsageQuery, toUsageCsv, toUsageRow, usageResponse, usageHead, usageQuery } from "../schemas/usage.ts";

const defaultDays = 30;
/** The size of the pieces in which an export is sent, in characters. */
const pieceLength = 16 << 10;

export interface UsageRouteOptions {
  readonly ledger: Pick<Ledger, "usage" | "usageOfAll">;
  /** quota.timezone. */
  readonly timezone: string;
  /** Today's date in that zone, YYYY-MM-DD. */
  readonly today: () => string;
  /** usage.keep_days. */
  readonly keepDays: number;
}

/** GET /auth/usage: the caller's usage. GET /admin/usage: usage of one user or of all, as JSON or CSV. */
export function registerUsageRoutes(app: FastifyInstance, options: UsageRouteOptions): void {
  const { ledger, timezone, today, keepDays } = options;
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const response = { 200: usageResponse, 400: errorSchema };

  routes.get(
    "/auth/usage",
    {
      config: { access: "api_key" },
      schema: { summary: "My usage", tags: ["account"], querystring: myUsageQuery, response },
    },
    async (request) => {
      const { by, ...query } = request.query;
      const span = spanOf(query, today(), keepDays);
      const { username } = accountOfRequest(request);
      const lines = (await ledger.usage({ user: username, ...span })).map((row) => ({
        user: undefined,
        row,
      }));
      const rows: ReturnType<typeof toUsageRow>[] = [];
      for await (const line of sumUsage(lines, by)) rows.push(toUsageRow(line, by));
      return { ...span, timezone, rows };
    },
  );

  routes.get(
    "/admin/usage",
    {
      config: { access: "admin" },
      schema: { summary: "Usage of a user, or of all", tags: ["admin"], querystring: usageQuery, response },
    },
    async ({ query }, reply) => {
      const { by, format } = query;
      const span = spanOf(query, today(), keepDays);
      const lines = sumUsage(linesOf(ledger, span, query), by);
      reply.header("cache-control", "no-store");
      if (format === "csv") {
        reply.type("text/csv; charset=utf-8");
        reply.header("content-disposition", `attachment; filename="usage_${span.from}_${span.to}.csv"`);
        return reply.send(streamOf(csvOf(lines, by)));
      }
      reply.type("application/json; charset=utf-8");
      const rows = mapAsync(lines, (line) => JSON.stringify(toUsageRow(line, by)));
      return reply.send(streamOf(jsonOf({ ...span, timezone }, rows)));
    },
  );
}

/** The requested days. Throws AppError invalid_request. */
export function spanOf(
  query: Pick<z.output<typeof myUsageQuery>, "from" | "to">,
  today: string,
  keepDays: number,
): UsageSpan {
  const to = query.to ?? today;
  const from = query.from ?? shiftDate(to, 1 - Math.min(defaultDays, keepDays));
  const refuse = (message: string): never => {
    throw new AppError("invalid_request", { param: "from", message });
  };
  if (from > to) refuse(`from (${from}) is after to (${to}).`);
  if (daysBetween(from, to) >= keepDays) refuse(`Usage is kept for ${keepDays} days: ask for no more.`);
  return { from, to };
}

async function* linesOf(
  ledger: UsageRouteOptions["ledger"],
  span: UsageSpan,
  { user, by }: z.output<typeof usageQuery>,
): AsyncGenerator<UsageLine> {
  if (user === undefined && (by === "user" || by === "key" || by === "all")) yield* ledger.usageOfAll(span);
  else for (const row of await ledger.usage({ user, ...span })) yield { user, row };
}

async function* csvOf(lines: AsyncIterable<UsageLine>, by: UsageBy): AsyncGenerator<string> {
  yield usageHead(by);
  for await (const line of lines) yield toUsageCsv(line, by);
}

async function* jsonOf(head: object, rows: AsyncIterable<string>): AsyncGenerator<string> {
  let before = `${JSON.stringify(head).slice(0, -1)},"rows":[`;
  for await (const row of rows) {
    yield before + row;
    before = ",";
  }
  yield before === "," ? "]}" : `${before}]}`;
}

async function* mapAsync<From, To>(items: AsyncIterable<From>, map: (item: From) => To): AsyncGenerator<To> {
  for await (const item of items) yield map(item);
}

/** A body that is sent as it is. Typed to match any response schema: streams are not serialized. */
function streamOf(texts: AsyncIterable<string>): never {
  return Readable.from(inPieces(texts)) as never;
}

async function* inPieces(texts: AsyncIterable<string>): AsyncGenerator<string> {
  let piece = "";
  for await (const text of texts) {
    piece += text;
    if (piece.length < pieceLength) continue;
    yield piece;
    piece = "";
  }
  yield piece;
}
