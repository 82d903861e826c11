import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { Client } from "../../chat/client.ts";
import type { ApiKey } from "../../accounts/api-key.ts";
import type { Chat } from "../../chat/handle-chat.ts";
import { AppError } from "../../errors.ts";
import type { Clock } from "../../lib/clock.ts";
import { accountOfRequest } from "../plugins/access.ts";
import { bodyOfRequest } from "../plugins/json-body.ts";
import { chatBody, chatCompletion } from "../schemas/chat.ts";
import { errorSchema } from "../schemas/errors.ts";

interface ChatRouteOptions {
  readonly chat: Chat;
  readonly clock: Clock;
  /** How long a client may stop reading. */
  readonly stallMs: number;
}

/** POST /chat/completions streams unless told otherwise (the house rule), POST /v1/chat/completions does as OpenAI. */
export function registerChatRoutes(app: FastifyInstance, options: ChatRouteOptions): void {
  registerChatRoute(app, "/chat/completions", true, options);
  registerChatRoute(app, "/v1/chat/completions", false, options);
}

function registerChatRoute(
  app: FastifyInstance,
  path: string,
  streamByDefault: boolean,
  options: ChatRouteOptions,
): void {
  const { chat, clock, stallMs } = options;
  app.post(
    path,
    {
      config: { access: "api_key", keepBytes: true },
      // The hot way: the body is checked by hand in chat-request.ts, and the answer is written raw.
      validatorCompiler: () => () => true,
      schema: {
        summary: streamByDefault ? "Chat (streams by default)" : "Chat (as OpenAI does it)",
        tags: ["chat"],
        body: chatBody,
        response: { 200: chatCompletion, "4xx": errorSchema, "5xx": errorSchema },
      },
    },
    (request: FastifyRequest, reply: FastifyReply) => {
      const account = accountOfRequest(request);
      const body = bodyOfRequest(request);
      checkModel(request.apiKey, body.value.model);
      request.reported = true;
      const client = new Client(reply, request.id, clock, stallMs);
      return chat.handle({ account, ip: request.ip, body, streamByDefault, client });
    },
  );
}

/** An API key may be for some models only. What is no model's name is refused later, with all the reasons. */
function checkModel(apiKey: ApiKey | null, model: unknown): void {
  if (apiKey === null || typeof model !== "string" || apiKey.allowsModel(model)) return;
  throw new AppError("forbidden", { param: "model", message: "This API key may not use this model." });
}
