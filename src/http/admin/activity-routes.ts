import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import { AppError } from "../../errors.ts";
import type { ActiveUsers } from "../../events/active-users.ts";
import type { AuditReader } from "../../events/log-files/audit-log.ts";
import { isBehaviourFolder } from "../../events/log-files/behaviour-files.ts";
import type { BehaviourLog } from "../../events/log-files/behaviour-log.ts";
import type { BehaviourReader, LogPage } from "../../events/log-files/log-pages.ts";
import { errorSchema } from "../schemas/errors.ts";
import { isoTime, userParams } from "./admin-request.ts";

const word = z.string().max(64).optional();
const moment = z.iso.datetime({ offset: true }).transform((text) => Date.parse(text));

export const pageQuery = z.strictObject({
  cursor: z.string().max(200).optional().describe("`next_cursor` of the previous page; use it with the same filters."),
  limit: z.coerce.number().int().min(1).max(1000).default(50).describe("Events per page."),
  from: moment.optional().describe("The first instant included."),
  to: moment.optional().describe("The first instant excluded."),
});

const behaviourQuery = pageQuery.extend({ type: word.describe("Only events of this type: chat.finished, ...") });

const auditQuery = pageQuery.extend({
  user: word.describe("Only changes that affected this user."),
  by: word.describe("Only changes that this administrator made."),
  action: word.describe("Only this action: quota.granted, ..."),
});

const pageResponse = z.object({
  events: z
    .array(z.looseObject({ ts: z.string(), event: z.string() }))
    .describe("Newest first, as they are in the log."),
  next_cursor: z
    .string()
    .nullable()
    .describe("null at the end. A page may be empty and still have one: each request reads a bounded part of the log."),
});

const activeResponse = z.object({
  window_seconds: z.number().describe("Users without activity for so long are not active."),
  users: z.array(
    z.object({
      user: z.string(),
      since: z.iso.datetime(),
      last_seen_at: z.iso.datetime(),
      chats: z.int().describe("Chats that ended since then, successful or not; running ones are not counted."),
      failed: z.int().describe("Chats that failed."),
      logins: z.int(),
    }),
  ),
});

export interface ActivityRouteOptions {
  readonly behaviour: BehaviourReader;
  readonly behaviourLog: Pick<BehaviourLog, "flush" | "health">;
  readonly auditReader: AuditReader;
  readonly activeUsers: ActiveUsers;
}

/** What users did, which users are active, and what administrators did. */
export function registerActivityRoutes(app: FastifyInstance, options: ActivityRouteOptions): void {
  const { behaviour, behaviourLog, auditReader, activeUsers } = options;
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const config = { access: "admin" } as const;
  const tags = ["admin"];

  /** Makes the newest lines visible. A flush already under way may have begun before they were added. */
  async function writeLines(): Promise<void> {
    await behaviourLog.flush();
    if (behaviourLog.health().queued > 0) await behaviourLog.flush();
  }

  routes.get(
    "/admin/users/:name/behaviour",
    {
      config,
      schema: {
        summary: "A user's recent activity; `_unknown` for made-up names",
        tags,
        params: userParams,
        querystring: behaviourQuery,
        response: { 200: pageResponse, 400: errorSchema, 404: errorSchema },
      },
    },
    async ({ params: { name: user }, query }) => {
      // An archived user, or a name mistyped at a login, may have a log and no account.
      if (!isBehaviourFolder(user)) throw new AppError("not_found", { message: "There can be no such user." });
      await writeLines();
      return toResponse(await behaviour.page({ user, ...query }));
    },
  );

  routes.get(
    "/admin/audit",
    {
      config,
      schema: {
        summary: "What administrators changed",
        tags,
        querystring: auditQuery,
        response: { 200: pageResponse, 400: errorSchema },
      },
    },
    async ({ query }) => toResponse(await auditReader.page(query)),
  );

  routes.get(
    "/admin/active-users",
    { config, schema: { summary: "Users who are active now", tags, response: { 200: activeResponse } } },
    () => ({
      window_seconds: activeUsers.windowMs / 1000,
      users: activeUsers.list().map(({ since, lastSeenAt, ...rest }) => ({
        ...rest,
        since: isoTime(since),
        last_seen_at: isoTime(lastSeenAt),
      })),
    }),
  );
}

function toResponse({ events, nextCursor }: LogPage) {
  return { events: [...events], next_cursor: nextCursor };
}
