import { z } from "zod";

/** The body of every error. */
export const errorSchema = z
  .object({
    error: z.object({
      message: z.string(),
      type: z.string(),
      code: z.string().describe("Stable; see the table of error codes in README."),
      param: z.string().nullable().describe("The field at fault."),
      trace_id: z.string().describe("Equals the X-Request-ID header."),
      details: z.record(z.string(), z.unknown()).optional(),
    }),
  })
  .describe("An error.");
