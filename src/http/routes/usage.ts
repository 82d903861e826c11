import { Readable } from "node:stream";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import { AppError } from "../../errors.ts";
import { daysBetween, shiftDate } from "../../lib/dates.ts";
import type { Ledger, UsageSpan } from "../../quota/ledger.ts";
import { MissingRecords, recordedUsage } from "../../quota/usage/recorded-usage.ts";
import { exportUsage } from "../../quota/usage/usage-export.ts";
import type { SumQuery } from "../../quota/usage/sum-cells.ts";
import {
  largestOf,
  sumBySubjects,
  sumUsage,
  TooManyRows,
  usageKeys,
  type UsageLine,
  type UsageSubject,
} from "../../quota/usage/usage-queries.ts";
import type { UsageSums } from "../../quota/usage/usage-sums.ts";
import { createZone, spanOfMoments } from "../../quota/zone.ts";
import { accountOfRequest } from "../plugins/authenticate.ts";
import { errorSchema } from "../schemas/errors.ts";
import {
  myUsageQuery,
  requestUsageResponse,
  toRequestUsage,
  toUsageCsv,
  toUsageRow,
  usageResponse,
  usageHead,
  usageQuery,
} from "../schemas/usage.ts";

const defaultDays = 30;
/** The size of the pieces in which an export is sent, in characters. */
const pieceLength = 16 << 10;

export interface UsageRouteOptions {
  readonly ledger: Pick<Ledger, "usage" | "usageOfAll" | "recorded" | "missingBefore">;
  /** quota.timezone. */
  readonly timezone: string;
  /** Today's date in that zone, YYYY-MM-DD. */
  readonly today: () => string;
  /** usage.keep_days. */
  readonly keepDays: number;
}

/**
 * GET /auth/usage: the caller's usage. GET /auth/usage/requests/ID: that of one request. GET /admin/usage: usage of one
 * user or of all, as JSON or CSV.
 */
export function registerUsageRoutes(
  app: FastifyInstance,
  options: UsageRouteOptions & { readonly usageSums: UsageSums },
): void {
  const { ledger, timezone, today, keepDays, usageSums: sums } = options;
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const response = { 200: usageResponse, 400: errorSchema, 429: errorSchema };
  const zone = createZone(timezone);
  let readers = 0;

  /** Summed before the answer begins, so that it can still be refused. */
  async function sumRecords(query: SumQuery): Promise<readonly UsageLine[]> {
    const { user, by, top } = query;
    const moments = spanOfMoments(query, zone);
    const kept = await sums.sum(query, moments.from ?? 0);
    if (kept !== undefined) return kept;
    if (readers >= maxReaders) {
      const message = `${maxReaders} reports are being read from the journal already. Try again when one has ended.`;
      throw new AppError("rate_limited", { message, retryAfterSeconds: 5 });
    }
    readers++;
    try {
      const items = exportUsage(ledger.recorded(), { ...moments, user });
      const lines: UsageLine[] = [];
      for await (const line of sumBySubjects(recordedUsage(items, timezone), by)) lines.push(line);
      return top === undefined ? lines : largestOf(lines, by, top);
    } finally {
      readers--;
    }
  }

  /**
   * The largest of the usage history, all users' one by one: from the sums of records where these are there and reach back
   * so far, else from each user's file.
   */
  async function sumLargest(query: SumQuery & { readonly top: number }): Promise<readonly UsageLine[]> {
    const { user, by, top } = query;
    const isWide = user === undefined && (by.includes("user") || by.includes("key"));
    if (isWide && sums.isReady()) {
      try {
        return await sumRecords(query);
      } catch (error) {
        if (!(error instanceof MissingRecords)) throw error;
      }
    }
    const lines: UsageLine[] = [];
    try {
      for await (const line of sumBySubjects(linesOf(ledger, query, user, by), by)) lines.push(line);
    } catch (error) {
      if (isWide && error instanceof TooManyRows) return sumRecords(query);
      throw error;
    }
    return largestOf(lines, by, top);
  }

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
      const sums = by === "month" ? sumBySubjects(lines, usageKeys.month) : sumUsage(lines, by);
      for await (const line of sums) rows.push(toUsageRow(line, usageKeys[by]));
      return { ...span, timezone, ...(await missingIn(span, options)), rows };
    },
  );

  routes.get(
    "/auth/usage/requests/:id",
    {
      config: { access: "api_key" },
      schema: {
        summary: "What one of my requests was charged",
        description:
          "As the ledger has settled it, which happens when its response has ended. 404 until then, and once thousands of " +
          "requests have followed.",
        tags: ["account"],
        params: z.object({ id: z.string().min(1).max(200).describe("X-Request-ID of the response.") }),
        response: { 200: requestUsageResponse, 400: errorSchema, 404: errorSchema },
      },
    },
    async (request, reply) => {
      const row = await sums.find(accountOfRequest(request).username, request.params.id);
      const usage = row === undefined ? undefined : toRequestUsage(row);
      if (usage === undefined) {
        const message = "No request of yours with this id is settled, or it was too long ago.";
        throw new AppError("not_found", { message });
      }
      reply.header("cache-control", "no-store");
      return usage;
    },
  );

  routes.get(
    "/admin/usage",
    {
      config: { access: "admin" },
      schema: {
        summary: "Usage of a user, or of all",
        tags: ["admin"],
        querystring: usageQuery,
        response: {
          ...response,
          200: {
            description: "As JSON, or as CSV with format=csv.",
            content: { "application/json": { schema: usageResponse }, "text/csv": { schema: z.string() } },
          },
        },
      },
    },
    async ({ query }, reply) => {
      const { format } = query;
      const span = spanOf(query, today(), keepDays);
      const by = subjectsOf(query);
      const { user, top } = query;
      const lines = by.some((subject) => isRecordedOnly.has(subject))
        ? await refusing(sumRecords({ ...span, user, by, top }))
        : top === undefined
          ? sumHistory(ledger, span, query)
          : await refusing(sumLargest({ ...span, user, by, top }));
      const missing = await missingIn(span, options);
      reply.header("cache-control", "no-store");
      if (format === "csv") {
        if (missing.missing_before !== undefined) reply.header("x-usage-missing-before", missing.missing_before);
        reply.type("text/csv; charset=utf-8");
        reply.header("content-disposition", `attachment; filename="usage_${span.from}_${span.to}.csv"`);
        return reply.send(streamOf(csvOf(lines, by)));
      }
      reply.type("application/json; charset=utf-8");
      const rows = mapAsync(lines, (line) => JSON.stringify(toUsageRow(line, by)));
      return reply.send(streamOf(jsonOf({ ...span, timezone, ...missing }, rows)));
    },
  );
}

/** With the error of a client for sums that there can't be. */
async function refusing<T>(sums: Promise<T>): Promise<T> {
  try {
    return await sums;
  } catch (error) {
    if (error instanceof MissingRecords) {
      const message = `For this grouping, ${error.message}: ask for later days (storage.journal_archive_days).`;
      throw new AppError("invalid_request", { param: "from", message });
    }
    if (!(error instanceof TooManyRows)) throw error;
    const message = "These are too many rows: ask for fewer days, or for the largest with `top`.";
    throw new AppError("invalid_request", { param: "from", message });
  }
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

/** The time before which charges may be missing, where the span begins before it. */
export async function missingIn(
  { from }: UsageSpan,
  { ledger, timezone }: Pick<UsageRouteOptions, "ledger" | "timezone">,
): Promise<{ readonly missing_before?: string }> {
  const before = await ledger.missingBefore();
  if (before === null || createZone(timezone).startOf(Date.parse(from)) >= before) return {};
  return { missing_before: new Date(before).toISOString() };
}

/** What only records of the journal say. */
const isRecordedOnly: ReadonlySet<UsageSubject> = new Set(["hour", "group", "provider"]);
/** Each reads the whole journal, where the sums that are kept don't suffice. */
const maxReaders = 2;

/** What the rows are grouped by: with `per`, in the place of the day. */
function subjectsOf({ by, per }: z.output<typeof usageQuery>): readonly UsageSubject[] {
  const subjects: readonly UsageSubject[] = usageKeys[by];
  if (per === undefined) return subjects;
  return [per, ...subjects.filter((subject) => subject !== "hour" && subject !== "day" && subject !== "month")];
}

function sumHistory(
  ledger: UsageRouteOptions["ledger"],
  span: UsageSpan,
  query: z.output<typeof usageQuery>,
): AsyncGenerator<UsageLine> {
  const { by, per, user } = query;
  const subjects = subjectsOf(query);
  const lines = linesOf(ledger, span, user, subjects);
  if (per !== undefined || by === "month" || by === "hour" || by === "group" || by === "provider")
    return sumBySubjects(lines, subjects);
  return sumUsage(lines, by);
}

async function* linesOf(
  ledger: UsageRouteOptions["ledger"],
  span: UsageSpan,
  user: string | undefined,
  by: readonly UsageSubject[],
): AsyncGenerator<UsageLine> {
  if (user === undefined && (by.includes("user") || by.includes("key"))) yield* ledger.usageOfAll(span);
  else for (const row of await ledger.usage({ user, ...span })) yield { user, row };
}

type Lines = AsyncIterable<UsageLine> | Iterable<UsageLine>;

async function* csvOf(lines: Lines, by: readonly UsageSubject[]): AsyncGenerator<string> {
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

async function* mapAsync<From, To>(
  items: AsyncIterable<From> | Iterable<From>,
  map: (item: From) => To,
): AsyncGenerator<To> {
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
    // Lines may be there already: others have their turn all the same.
    await nextTurn();
  }
  yield piece;
}
