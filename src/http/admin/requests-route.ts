import type { FastifyInstance } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import type { BehaviourLog } from "../../events/log-files/behaviour-log.ts";
import type { BehaviourEvent } from "../../events/log-files/behaviour-scan.ts";
import type { BehaviourReader, RequestReader } from "../../events/log-files/log-pages.ts";
import { errorSchema } from "../schemas/errors.ts";
import { pageQuery } from "./activity-routes.ts";

const word = z.string().min(1).max(200).optional();

const requestsQuery = pageQuery.extend({
  user: z
    .string()
    .regex(/^[a-z0-9][a-z0-9_-]{0,31}$/, "expected a user name")
    .optional(),
  group: word,
  key_id: word.describe("Id of the API key."),
  model: word,
  provider: word,
  code: word.describe("`ok`, or the error code that the client got."),
  request_id: word.describe("X-Request-ID."),
});

const requestsResponse = z.object({
  node: z.string().describe("The process that has answered: the requests are those that it has served."),
  requests: z
    .array(
      z.looseObject({
        id: z.string().describe("Of the event, as in /admin/events."),
        time: z.string().describe("When it ended."),
        request_id: z.string(),
        user: z.string(),
        group: z.string(),
        key_id: z.string(),
        address: z.string(),
      }),
    )
    .describe("Newest first, with the payload of chat.finished as docs/events.md has it."),
  next_cursor: z
    .string()
    .nullable()
    .describe("null at the end. A page may be empty and still have one: each request reads a bounded part of the log."),
});

export interface RequestsRouteOptions {
  /** The requests of all users. */
  readonly requestReader: RequestReader;
  readonly requestLog: Pick<BehaviourLog, "flush" | "health">;
  readonly behaviour: BehaviourReader;
  readonly behaviourLog: Pick<BehaviourLog, "flush" | "health">;
  readonly node: string;
}

/** GET /admin/requests: the requests of all users, or of one, filtered here. */
export function registerRequestsRoute(app: FastifyInstance, options: RequestsRouteOptions): void {
  const { requestReader, requestLog, behaviour, behaviourLog, node } = options;
  app.withTypeProvider<ZodTypeProvider>().get(
    "/admin/requests",
    {
      config: { access: "admin" },
      schema: {
        summary: "Requests of all users, newest first",
        tags: ["admin"],
        querystring: requestsQuery,
        response: { 200: requestsResponse, 400: errorSchema },
      },
    },
    async ({ query: { user, cursor, limit, from, to, request_id, ...fields } }, reply) => {
      const wanted = Object.entries({ ...fields, trace_id: request_id }).filter(([, value]) => value !== undefined);
      const matches = (event: BehaviourEvent): boolean => wanted.every(([name, value]) => event[name] === value);
      const page = { cursor, limit, from, to, type: "chat.finished", matches };
      // Lines that wait in memory become visible. One user's are in a log of their own, however many others there are.
      const log = user === undefined ? requestLog : behaviourLog;
      await log.flush();
      // One that was under way may have begun before the newest lines came.
      if (log.health().queued > 0) await log.flush();
      const { events, nextCursor } = await (user === undefined
        ? requestReader.page(page)
        : behaviour.page({ user, ...page }));
      reply.header("cache-control", "no-store");
      return { node, requests: events.map(toRequest), next_cursor: nextCursor };
    },
  );
}

/** Names as in an envelope. */
function toRequest({ ts, trace_id, ip, id = trace_id, user, group, key_id, ...rest }: BehaviourEvent) {
  const data = Object.fromEntries(Object.entries(rest).filter(([name]) => name !== "event"));
  const text = (value: unknown): string => (typeof value === "string" ? value : "");
  return {
    id: text(id),
    time: ts,
    request_id: text(trace_id),
    user: text(user),
    group: text(group),
    key_id: text(key_id),
    address: text(ip),
    ...data,
  };
}
