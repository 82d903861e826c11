import type { ServerResponse } from "node:http";
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import { AppError } from "../../errors.ts";
import { eventTypes } from "../../events/catalogue.ts";
import type { EventFeed, FeedEvent } from "../../events/event-feed.ts";
import { createAllowList, globMatcher, maxNameLength } from "../../lib/globs.ts";
import { accountOfRequest } from "../plugins/authenticate.ts";
import { errorSchema } from "../schemas/errors.ts";

const word = z.string().min(1).max(128);
const manyWords = z.union([z.string(), z.array(z.string()).max(100)]).optional();

const eventsQuery = z.strictObject({
  types: manyWords.describe("Only these types, separated by commas or repeated; globs such as `chat.*`."),
  user: word.optional().describe("Only events of this user."),
  group: word.optional().describe("Only events of this group."),
  request_id: word.optional().describe("Only events of the request with this X-Request-ID."),
  last_event_id: word
    .optional()
    .describe("Begins after this event; the header `Last-Event-ID`, which browsers send, wins."),
});

type EventsQuery = z.infer<typeof eventsQuery>;

const eventSchema = z.object({
  id: z.string().optional().describe("To resume after it: `last_event_id`."),
  event: z.string().describe("The event's type, or `gap`."),
  data: z.string().describe("The envelope in JSON."),
});

export interface EventsRouteOptions {
  readonly eventFeed: EventFeed;
  /** How many may read at once. */
  readonly maxStreams: () => number;
  /** Rejects if the request would be refused now. */
  readonly checkAgain: (request: FastifyRequest) => Promise<void>;
  /** How often to check the credential of a stream again, in ms. */
  readonly checkMs?: number;
  /** A comment goes out after so many ms. */
  readonly heartbeatMs?: number;
}

/** Bytes that may wait for a reader; the rest waits in the feed. */
const maxWaiting = 256 << 10;

/**
 * `GET /admin/events`: what happens in this process, as server-sent events. Returns a function that ends all streams.
 */
export function registerEventsRoute(app: FastifyInstance, options: EventsRouteOptions): () => void {
  const { eventFeed, maxStreams, checkAgain, checkMs = 5000, heartbeatMs = 15_000 } = options;
  const open = new Set<() => void>();

  app.withTypeProvider<ZodTypeProvider>().get(
    "/admin/events",
    {
      config: { access: "admin" },
      exposeHeadRoute: false,
      schema: {
        summary: "Events as they happen, in this process",
        tags: ["admin"],
        querystring: eventsQuery,
        response: {
          200: {
            description:
              "Server-sent events: `id`, `event` (the type) and `data` (the envelope, see docs/events.md). An `id` alone comes " +
              "first: the place where the stream begins. `event: gap` " +
              'says that events were missed: `{"missed": NUMBER}`, of all types, or "unknown".',
            content: { "text/event-stream": { schema: eventSchema } },
          },
          400: errorSchema,
          503: errorSchema,
        },
      },
    },
    (request, reply) => {
      const wanted = filterOf(request.query);
      if (open.size >= maxStreams()) {
        throw new AppError("proxy_overloaded", {
          message: "Too many programs follow the events already. Close one, or raise events.max_streams.",
          retryAfterSeconds: 15,
        });
      }
      const header = request.headers["last-event-id"];
      const after = typeof header === "string" && header !== "" ? header : request.query.last_event_id;
      reply.hijack();
      const { raw } = reply;
      for (const [name, value] of Object.entries(reply.getHeaders()))
        if (value !== undefined) raw.setHeader(name, value);
      raw.writeHead(200, {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-store, no-transform",
        "x-accel-buffering": "no",
      });
      follow(raw, { after, wanted, user: accountOfRequest(request).username, check: () => checkAgain(request) });
    },
  );

  interface Following {
    readonly after: string | undefined;
    readonly wanted: (event: FeedEvent) => boolean;
    /** Who reads. */
    readonly user: string;
    readonly check: () => Promise<void>;
  }

  function follow(raw: ServerResponse, { after, wanted, user, check }: Following): void {
    const reader = eventFeed.open(after, pump);
    let isChecking = false;
    // With the id alone a reader whose connection breaks before its first event misses none.
    raw.write(`: connected\n${reader.openedAfter === undefined ? "" : `id: ${reader.openedAfter}\n`}\n`);

    function pump(): void {
      while (raw.writableLength < maxWaiting) {
        const event = reader.next();
        if (event === undefined) return;
        if (event === "gap") raw.write(`event: gap\ndata: {"missed":${reader.missed ?? '"unknown"'}}\n\n`);
        else {
          if (wanted(event)) raw.write(`id: ${event.id}\nevent: ${event.type}\ndata: ${event.text}\n\n`);
          // It may be about the credential: a session that ended, a role that was taken.
          if (event.user === user && event.type !== "chat.finished") checkNow();
        }
      }
    }

    function checkNow(): void {
      if (isChecking) return;
      isChecking = true;
      check()
        .catch(end)
        .finally(() => {
          isChecking = false;
        });
    }

    function end(): void {
      stop();
      raw.end();
    }

    function stop(): void {
      open.delete(end);
      reader.close();
      clearInterval(checks);
      clearInterval(heartbeats);
    }

    const checks = setInterval(checkNow, checkMs).unref();
    const heartbeats = setInterval(() => {
      // A reader that hangs gets none: they would pile up.
      if (raw.writableLength < maxWaiting) raw.write(": heartbeat\n\n");
    }, heartbeatMs).unref();
    open.add(end);
    raw.on("drain", pump);
    raw.on("close", stop);
    // A connection that breaks closes as well.
    raw.on("error", () => undefined);
    pump();
  }

  return () => {
    for (const end of open) end();
  };
}

/** @throws AppError `invalid_request` for a type that no event has */
function filterOf({ types, user, group, request_id: requestId }: EventsQuery): (event: FeedEvent) => boolean {
  const globs = [types ?? []].flat().flatMap((one) => one.split(",").map((glob) => glob.trim()));
  for (const glob of globs) {
    if (glob.length <= maxNameLength && eventTypes.some(globMatcher(glob))) continue;
    const message = `types: expected types of events, such as ${eventTypes.join(", ")}, or globs of them; got ${JSON.stringify(glob.slice(0, 64))}.`;
    throw new AppError("invalid_request", { param: "types", message });
  }
  const isType = createAllowList(globs.length === 0 ? undefined : globs);
  return (event) =>
    isType(event.type) &&
    (user === undefined || event.user === user) &&
    (group === undefined || event.group === group) &&
    (requestId === undefined || event.requestId === requestId);
}
