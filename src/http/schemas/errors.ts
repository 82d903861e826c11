import { z } from "zod";
import { errorTable, type ErrorCode } from "../../errors.ts";

const [first, ...others] = Object.keys(errorTable) as [ErrorCode, ...ErrorCode[]];
const ownCode = z.enum([first, ...others]).describe("Stable; docs/errors.md has a table of them.");
const anyCode = z
  .union([ownCode, z.string().describe("The provider's own code, if it rejects the request as the client's error.")])
  .describe("Stable.");

function facts<Code extends z.ZodType>(code: Code) {
  return z.object({
    message: z.string(),
    type: z.string(),
    code,
    param: z.string().nullable().describe("The invalid field."),
    trace_id: z.string().describe("Equals the X-Request-ID header."),
    details: z.record(z.string(), z.unknown()).optional(),
  });
}

/** The body of every error of the proxy itself. */
export const errorSchema = z.object({ error: facts(ownCode) }).describe("An error.");

/** The body of an error on a route that calls a provider. */
export const chatErrorSchema = z.object({ error: facts(anyCode) }).describe("An error.");

/** The same for Anthropic's clients. */
export const anthropicErrorSchema = z
  .object({ type: z.literal("error"), error: facts(anyCode), request_id: z.string() })
  .describe("An error, with Anthropic's types.");
