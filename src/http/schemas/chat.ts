import { z } from "zod";

const message = z
  .looseObject({
    role: z.string().describe("system, user, assistant or tool"),
    content: z.unknown().optional().describe("Text, or a list of parts where the model takes them."),
  })
  .describe("A message of the conversation.");

/** Documents the body of a chat. The route checks it by hand, under the same rules. */
export const chatBody = z
  .looseObject({
    model: z.string().min(1).max(200).describe("A model that GET /v1/models lists."),
    messages: z.array(message).min(1),
    stream: z
      .boolean()
      .nullish()
      .describe("true: server-sent events; false: one JSON. Absent: events on /chat/completions, JSON on /v1."),
    stream_options: z.looseObject({ include_usage: z.boolean().optional() }).nullish(),
    max_tokens: z.int().min(1).max(10_000_000).nullish(),
    max_completion_tokens: z.int().min(1).max(10_000_000).nullish(),
    n: z.int().min(1).max(128).nullish(),
  })
  .describe("An OpenAI chat request. Fields that are not named here are passed on as they are.");

/** A collected answer, as OpenAI gives it. */
export const chatCompletion = z.looseObject({
  id: z.string(),
  object: z.literal("chat.completion"),
  created: z.number(),
  model: z.string(),
  choices: z.array(z.looseObject({ index: z.number(), finish_reason: z.string().nullable() })),
});

export const modelList = z.object({
  object: z.literal("list"),
  data: z.array(z.object({ id: z.string(), object: z.literal("model"), created: z.number(), owned_by: z.string() })),
});
