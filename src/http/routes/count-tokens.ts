import type { FastifyInstance } from "fastify";
import { z } from "zod";
import type { CountTokens } from "../../gateway/count-tokens.ts";
import type { Admission } from "../../gateway/admission.ts";
import { messages } from "../../gateway/formats/messages.ts";
import type { Groups } from "../../identity/groups.ts";
import { groupOfRequest } from "../group-of-request.ts";
import { accountOfRequest } from "../plugins/authenticate.ts";
import { bodyOfRequest } from "../plugins/request-body.ts";

const tokenCount = z.object({ input_tokens: z.int().describe("An estimate: no provider is called.") });

/** POST .../messages/count_tokens: the length of a prompt. Coding agents call it often; it costs nothing. */
export function registerCountTokensRoutes(
  app: FastifyInstance,
  options: {
    readonly policy: () => { readonly countTokens: CountTokens; readonly admission: Admission };
    readonly groups: Pick<Groups, "get" | "ofUser">;
  },
): void {
  const { policy, groups } = options;
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
      async (request) => {
        const { admission, countTokens } = policy();
        const body = bodyOfRequest(request);
        const group = await groupOfRequest(request, groups);
        const { apiKey } = request;
        admission.checkModel({ apiKey, account: accountOfRequest(request), group }, body.value.model);
        return { input_tokens: countTokens(body) };
      },
    );
  }
}
