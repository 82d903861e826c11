import { z } from "zod";

const chatMessage = z
  .looseObject({
    role: z.string().describe("system, user, assistant or tool"),
    content: z.unknown().optional().describe("Text, or a list of parts where the model takes them."),
  })
  .describe("A message of the conversation.");

const model = z.string().min(1).max(200).describe("A model that GET /v1/models lists.");
const maxTokens = z.int().min(1).max(10_000_000).nullish();
const streams = z.boolean().nullish().describe("true: server-sent events; false, or absent: one JSON.");
const streamOptions = z.looseObject({ include_usage: z.boolean().optional() }).nullish();
const texts = z.union([z.string(), z.array(z.unknown()).min(1)]);

/** Documents the body of a chat. The route checks it itself, by the same rules. */
export const chatBody = z
  .looseObject({
    model,
    messages: z.array(chatMessage).min(1),
    stream: z
      .boolean()
      .nullish()
      .describe(
        "true: server-sent events; false: one JSON. Absent: JSON on /v1; on /chat/completions as chat.stream_default says, or JSON where Accept takes nothing else.",
      ),
    stream_options: streamOptions,
    max_tokens: maxTokens,
    max_completion_tokens: maxTokens,
    n: z.int().min(1).max(128).nullish(),
  })
  .describe("An OpenAI chat request. Fields that are not named here are passed on as they are.");

/** A collected response, as OpenAI sends it. */
export const chatCompletion = z.looseObject({
  id: z.string(),
  object: z.literal("chat.completion"),
  created: z.number(),
  model: z.string(),
  choices: z.array(z.looseObject({ index: z.number(), finish_reason: z.string().nullable() })),
});

export const completionBody = z
  .looseObject({
    model,
    prompt: texts.describe("The text before the completion."),
    suffix: z.string().nullish().describe("The text after the completion, for fill-in-the-middle."),
    stream: streams,
    stream_options: streamOptions,
    max_tokens: maxTokens,
    n: z.int().min(1).max(128).nullish(),
  })
  .describe("A text completion. Fields that are not named here are passed on as they are.");

export const textCompletion = z.looseObject({
  id: z.string(),
  object: z.literal("text_completion"),
  created: z.number(),
  model: z.string(),
  choices: z.array(z.looseObject({ index: z.number(), text: z.string(), finish_reason: z.string().nullable() })),
});

export const messageBody = z
  .looseObject({ model, messages: z.array(chatMessage).min(1), max_tokens: maxTokens, stream: streams })
  .describe("An Anthropic Messages request. Fields that are not named here are passed on as they are.");

export const message = z.looseObject({
  id: z.string(),
  type: z.literal("message"),
  role: z.literal("assistant"),
  content: z.array(z.looseObject({ type: z.string() })),
  stop_reason: z.string().nullable(),
  usage: z.looseObject({ input_tokens: z.number(), output_tokens: z.number() }),
});

export const embeddingBody = z
  .looseObject({ model, input: texts.describe("A text, or a list of texts.") })
  .describe("An embeddings request. Fields that are not named here are passed on as they are.");

export const embeddingList = z.looseObject({
  object: z.literal("list"),
  data: z.array(z.looseObject({ object: z.literal("embedding"), index: z.number(), embedding: z.unknown() })),
  model: z.string(),
  usage: z.looseObject({ prompt_tokens: z.number(), total_tokens: z.number() }),
});

const events = z
  .string()
  .describe("Server-sent events, passed on as the provider sends them; the last one may be an error.");

/** The response of a route that can stream. */
export function streamOr(response: z.ZodType) {
  return {
    description: "One JSON object, or events if `stream` is true.",
    content: { "application/json": { schema: response }, "text/event-stream": { schema: events } },
  };
}
