import { z } from "zod";
import { replaceMembers } from "../../lib/json-object.ts";
import type { ApiFormat, Collector } from "./api-format.ts";
import { openaiWire } from "./openai-wire.ts";
import { countPrompts, readModel } from "./request-checks.ts";
import * as parts from "./schema-parts.ts";

const requestSchema = z
  .looseObject({ model: parts.model, input: parts.texts.describe("A text, or a list of texts.") })
  .meta({
    description: "An embeddings request. Fields that are not named here are passed on as they are.",
    examples: [{ model: "text-embedding-3-small", input: "Say hello." }],
  });

const responseSchema = z.looseObject({
  object: z.literal("list"),
  data: z.array(z.looseObject({ object: z.literal("embedding"), index: z.number(), embedding: z.unknown() })),
  model: z.string(),
  usage: z.looseObject({ prompt_tokens: z.number(), total_tokens: z.number() }),
});

/** OpenAI's embeddings: never streamed, and passed on byte for byte. */
export const embeddings: ApiFormat = {
  ...openaiWire,
  routes: [{ summary: "Embeddings", paths: ["/embeddings", "/v1/embeddings"] }],
  requestSchema,
  responseSchema,
  streams: undefined,
  parse(body) {
    const model = readModel(body.value);
    countPrompts("input", body.value.input);
    return {
      api: "embeddings",
      model,
      stream: false,
      collects: true,
      wantsUsageChunk: false,
      maxTokens: 0,
      choices: 1,
      bytes: body.bytes.length,
      canDropStreamOptions: () => false,
      bodyFor: (upstreamModel) =>
        model === upstreamModel ? body.bytes : replaceMembers(body, { model: JSON.stringify(upstreamModel) }),
    };
  },
  createCollector: () => new OneEvent(),
};

class OneEvent implements Collector {
  #body: Buffer = Buffer.alloc(0);

  add(_parsed: unknown, event: Buffer, start: number, end: number): void {
    this.#body = event.subarray(start, end);
  }

  body(): Buffer {
    return this.#body;
  }

  partial(): null {
    return null;
  }
}
