import type { FastifyInstance, FastifyRequest } from "fastify";
import { z } from "zod";
import type { ApiFormat, ApiRoute } from "../../gateway/formats/api-format.ts";
import { formats } from "../../gateway/formats/formats.ts";
import { ResponseWriter } from "../../gateway/response-writer.ts";
import type { Gateway } from "../../gateway/handle-request.ts";
import type { Clock } from "../../lib/clock.ts";
import { AppError } from "../../errors.ts";
import { groupHeaderOf } from "../group-of-request.ts";
import { accountOfRequest } from "../plugins/authenticate.ts";
import { bodyOfRequest } from "../plugins/request-body.ts";
import type { GatewayPolicy } from "../../gateway/policy.ts";

interface ChatRouteOptions {
  readonly gateway: Gateway;
  readonly clock: Clock;
  /** The policy in force: each request reads it once. */
  readonly policy: () => GatewayPolicy;
}

/** All routes that cost money. Some programs append /v1 to their base URL, some don't; DeepSeek's users append /beta. */
export function registerChatRoutes(app: FastifyInstance, options: ChatRouteOptions): void {
  for (const format of formats) for (const route of format.routes) registerRoute(app, format, route, options);
}

function registerRoute(app: FastifyInstance, format: ApiFormat, route: ApiRoute, options: ChatRouteOptions): void {
  const { gateway, clock } = options;
  const { summary, paths, mayStreamByDefault = false } = route;
  const { requestSchema, responseSchema, streams, errorBody } = format;
  for (const path of paths) {
    if (format.refusesWebSocket === true) refuseWebSocket(app, path);
    app.post(
      path,
      {
        config: { access: "api_key", sheds: true, keepBytes: true, errorBody },
        // The hot path: the format checks the body itself, and the response is written raw.
        validatorCompiler: () => () => true,
        schema: {
          summary,
          tags: ["chat"],
          body: requestSchema,
          response: { 200: streams === undefined ? responseSchema : streamOr(responseSchema, streams) },
        },
      },
      (request, reply) => {
        const policy = options.policy();
        const account = accountOfRequest(request);
        const body = bodyOfRequest(request);
        request.reported = true;
        const client = new ResponseWriter(reply, request.id, format, policy.readerTimes, clock);
        const wantsPartial = asksForPartial(request);
        return gateway.handle({
          policy,
          account,
          apiKey: request.apiKey,
          groupHeader: groupHeaderOf(request),
          ip: request.ip,
          clientName: clientNameOf(request.headers["user-agent"]),
          body,
          format,
          streamByDefault: mayStreamByDefault && policy.streamDefault && !takesJsonAlone(request.headers.accept),
          wantsPartial,
          client,
          trace: request.trace,
        });
      },
    );
  }
}

/**
 * Codex tries a WebSocket first, whose handshake is a GET. After a 426 it uses POST at once; after any other status it
 * would go on trying.
 */
function refuseWebSocket(app: FastifyInstance, path: string): void {
  app.get(path, { config: { access: "public" }, exposeHeadRoute: false, schema: { hide: true } }, () => {
    // RFC 9110, 15.5.22: a 426 names the protocol to use.
    throw new AppError("upgrade_required", { headers: { upgrade: "HTTP/1.1", connection: "upgrade", allow: "POST" } });
  });
}

/**
 * The response of a route that can stream.
 * @param events what its events are
 */
function streamOr(response: z.ZodType, events: string) {
  const event = z
    .object({
      event: z.string().optional().describe("Its type, where the API names it."),
      data: z.string().describe("JSON, or `[DONE]`."),
    })
    .describe(
      `One of the server-sent events, which are passed on as the provider sends them. ${events} Lines that begin with a colon are comments, which keep the connection open.`,
    );
  return {
    description: "One JSON object, or events if `stream` is true.",
    content: { "application/json": { schema: response }, "text/event-stream": { schema: event } },
  };
}

/**
 * The client program that a User-Agent names, without its version, at most 40 printable characters: `OpenAI/Python` of
 * `OpenAI/Python 2.1.0`, `claude-cli` of `claude-cli/2.0.14 (external, cli)`.
 */
function clientNameOf(userAgent = ""): string {
  const [name = ""] = userAgent.slice(0, 40).split(" ", 1);
  return name.replace(/\/v?[0-9].*$/, "").replace(/[^\x21-\x7e]/g, "?");
}

function asksForPartial({ headers }: FastifyRequest): boolean {
  return String(headers["x-partial"]).toLowerCase() === "true";
}

/**
 * Whether an Accept header asks for JSON and no events, as OpenAI's SDKs do, streamed or not. Browsers and command line
 * tools send a wildcard, which accepts both.
 */
export function takesJsonAlone(accept: string | undefined): boolean {
  let json = false;
  for (const range of accept?.split(",") ?? []) {
    const [type = "", ...parameters] = range.split(";").map((part) => part.trim().toLowerCase());
    if (parameters.some(isZero)) continue;
    if (type === "*/*" || type === "text/*" || type === "text/event-stream") return false;
    if (type === "application/json" || type === "application/*") json = true;
  }
  return json;
}

/** A weight of 0 means "not acceptable" (RFC 9110, 12.4.2). */
function isZero(parameter: string): boolean {
  const [name = "", value = ""] = parameter.split("=", 2);
  return name.trim() === "q" && Number(value) === 0;
}
