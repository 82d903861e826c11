import { z } from "zod";

/* Fields that several APIs have in common, for OpenAPI. */

export const chatMessage = z
  .looseObject({
    role: z.string().describe("system, user, assistant or tool"),
    content: z.unknown().optional().describe("Text, or a list of parts where the model takes them."),
  })
  .describe("A message of the conversation.");

export const model = z.string().min(1).max(200).describe("A model that GET /v1/models lists.");
export const maxTokens = z.int().min(1).max(10_000_000).nullish();
export const streams = z.boolean().nullish().describe("true: server-sent events; false, or absent: one JSON.");
export const streamOptions = z.looseObject({ include_usage: z.boolean().optional() }).nullish();
export const texts = z.union([z.string(), z.array(z.unknown()).min(1)]);
