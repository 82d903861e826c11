import type { FastifyInstance } from "fastify";
import { z } from "zod";
import type { CountTokens } from "../../gateway/count-tokens.ts";
import { isModelName } from "../../gateway/formats/request-checks.ts";
import { messages } from "../../gateway/formats/messages.ts";
import { AppError } from "../../errors.ts";
import { bodyOfRequest } from "../plugins/request-body.ts";

const tokenCount = z.object({ input_tokens: z.int().describe("An estimate: no provider is called.") });

/** POST .../messages/count_tokens: the length of a prompt. Coding agents call it often; it costs nothing. */
export function registerCountTokensRoutes(app: FastifyInstance, countTokens: () => CountTokens): void {
  for (const path of ["/anthropic/v1/messages/count_tokens", "/v1/messages/count_tokens"]) {
    app.post(
      path,
      {
        config: { access: "api_key", sheds: true, keepBytes: true, errorBody: messages.errorBody },
        // Checked by the format itself, like messages.
        validatorCompiler: () => () => true,
        schema: {
          summary: "Estimate the tokens of a message's prompt",
          tags: ["chat"],
          body: messages.requestSchema,
          response: { 200: tokenCount },
        },
      },
      (request) => {
        const body = bodyOfRequest(request);
        const { model } = body.value;
        if (isModelName(model) && request.apiKey?.allowsModel(model) === false) {
          throw new AppError("forbidden", { param: "model", message: "This API key may not use this model." });
        }
        return { input_tokens: countTokens()(body) };
      },
    );
  }
}
