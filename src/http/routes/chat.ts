import type { FastifyInstance, FastifyRequest } from "fastify";
import type { z } from "zod";
import type { ApiFormat } from "../../gateway/formats/api-format.ts";
import { ResponseWriter } from "../../gateway/response-writer.ts";
import type { Gateway } from "../../gateway/handle-request.ts";
import { betaChatCompletions, chatCompletions } from "../../gateway/formats/chat-completions.ts";
import { completions } from "../../gateway/formats/completions.ts";
import { embeddings } from "../../gateway/formats/embeddings.ts";
import { messages } from "../../gateway/formats/messages.ts";
import type { Clock } from "../../lib/clock.ts";
import { accountOfRequest } from "../plugins/authenticate.ts";
import { bodyOfRequest } from "../plugins/json-body.ts";
import * as schemas from "../schemas/chat.ts";
import type { GatewayPolicy } from "../../gateway/policy.ts";

interface ChatRouteOptions {
  readonly gateway: Gateway;
  readonly clock: Clock;
  /** The policy in force: each request reads it once. */
  readonly policy: () => GatewayPolicy;
}

/** An API: the format of its requests and responses, and its path. */
interface Api {
  readonly shape: ApiFormat;
  readonly summary: string;
  readonly paths: readonly string[];
  /** Whether an absent `stream` may mean true; otherwise it means false, as the SDKs expect. */
  readonly mayStreamByDefault?: boolean;
  readonly body: z.ZodType;
  readonly response: z.ZodType;
}

/** Some programs append /v1 to their base URL, some don't; DeepSeek's users append /beta. */
const apis: readonly Api[] = [
  {
    shape: chatCompletions,
    summary: "Chat (as DeepSeek has it)",
    paths: ["/chat/completions"],
    mayStreamByDefault: true,
    body: schemas.chatBody,
    response: schemas.chatCompletion,
  },
  {
    shape: chatCompletions,
    summary: "Chat (as OpenAI does it)",
    paths: ["/v1/chat/completions"],
    body: schemas.chatBody,
    response: schemas.chatCompletion,
  },
  {
    shape: betaChatCompletions,
    summary: "Chat with DeepSeek's beta features",
    paths: ["/beta/chat/completions"],
    body: schemas.chatBody,
    response: schemas.chatCompletion,
  },
  {
    shape: completions,
    summary: "Text completion, and fill-in-the-middle with a suffix",
    paths: ["/beta/completions", "/completions", "/v1/completions"],
    body: schemas.completionBody,
    response: schemas.textCompletion,
  },
  {
    shape: messages,
    summary: "Chat in Anthropic's shape",
    paths: ["/anthropic/v1/messages", "/v1/messages"],
    body: schemas.messageBody,
    response: schemas.message,
  },
  {
    shape: embeddings,
    summary: "Embeddings",
    paths: ["/embeddings", "/v1/embeddings"],
    body: schemas.embeddingBody,
    response: schemas.embeddingList,
  },
];

/** All routes that cost money. */
export function registerChatRoutes(app: FastifyInstance, options: ChatRouteOptions): void {
  for (const api of apis) for (const path of api.paths) registerApi(app, path, api, options);
}

function registerApi(app: FastifyInstance, path: string, api: Api, options: ChatRouteOptions): void {
  const { gateway, clock } = options;
  const { shape, mayStreamByDefault = false } = api;
  app.post(
    path,
    {
      config: { access: "api_key", keepBytes: true, errorBody: shape.errorBody },
      // The hot path: the format checks the body itself, and the response is written raw.
      validatorCompiler: () => () => true,
      schema: {
        summary: api.summary,
        tags: ["chat"],
        body: api.body,
        response: { 200: shape === embeddings ? api.response : schemas.streamOr(api.response) },
      },
    },
    (request, reply) => {
      const policy = options.policy();
      const account = accountOfRequest(request);
      const body = bodyOfRequest(request);
      request.reported = true;
      const client = new ResponseWriter(reply, request.id, shape, policy.readerTimes, clock);
      const wantsPartial = asksForPartial(request);
      return gateway.handle({
        policy,
        account,
        apiKey: request.apiKey,
        ip: request.ip,
        body,
        format: shape,
        streamByDefault: mayStreamByDefault && policy.streamDefault && !takesJsonAlone(request.headers.accept),
        wantsPartial,
        client,
      });
    },
  );
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
