import { z } from "zod";
import type { ApiFormat } from "./api-format.ts";
import { type Choice, ChoicesCollector, Logprobs } from "./choices-collector.ts";
import { emptyFields, type Fields } from "./merge-fields.ts";
import { openaiWire, canDropStreamOptions, streamingBody, wholeBody } from "./openai-wire.ts";
import { countPrompts, readCount, readModel, readStream, readStreamOptions, readTokens } from "./request-checks.ts";
import * as parts from "./schema-parts.ts";

const maxChoices = 128;

const requestSchema = z
  .looseObject({
    model: parts.model,
    prompt: parts.texts.describe("The text before the completion."),
    suffix: z.string().nullish().describe("The text after the completion, for fill-in-the-middle."),
    stream: parts.streams,
    stream_options: parts.streamOptions,
    max_tokens: parts.maxTokens,
    n: z.int().min(1).max(128).nullish(),
  })
  .meta({
    description: "A text completion. Fields that are not named here are passed on as they are.",
    examples: [{ model: "deepseek-v4-pro", prompt: "def add(a, b):", suffix: "    return result", max_tokens: 50 }],
  });

const responseSchema = z.looseObject({
  id: z.string(),
  object: z.literal("text_completion"),
  created: z.number(),
  model: z.string(),
  choices: z.array(z.looseObject({ index: z.number(), text: z.string(), finish_reason: z.string().nullable() })),
});

/** OpenAI's text completions, with `suffix` to fill in the middle. */
export const completions: ApiFormat = {
  ...openaiWire,
  routes: [
    {
      summary: "Text completion, and fill-in-the-middle with a suffix",
      paths: ["/beta/completions", "/completions", "/v1/completions"],
    },
  ],
  requestSchema,
  responseSchema,
  parse(body, streamByDefault) {
    const { value } = body;
    const model = readModel(value);
    const prompts = countPrompts("prompt", value.prompt);
    const stream = readStream(value) ?? streamByDefault;
    const streamOptions = readStreamOptions(value);
    // All `best_of` completions are generated and billed, though only `n` are returned.
    const returned = readCount(value, "n", maxChoices) ?? 1;
    const generated = Math.max(returned, readCount(value, "best_of", maxChoices) ?? 1);
    // OpenAI can't stream the best of several: it knows them only at the end.
    const streamsUpstream = stream || generated === returned;
    return {
      api: "completions",
      model,
      stream,
      collects: !stream,
      wantsUsageChunk: streamOptions?.include_usage === true,
      maxTokens: readTokens(value, "max_tokens"),
      choices: generated * prompts,
      bytes: body.bytes.length,
      canDropStreamOptions() {
        return canDropStreamOptions(streamOptions, body);
      },
      bodyFor: (upstreamModel, takes, asWhole) =>
        asWhole === true || !streamsUpstream
          ? wholeBody(body, upstreamModel, takes)
          : streamingBody(body, upstreamModel, streamOptions, takes),
    };
  },
  createCollector: () => new CompletionCollector(),
};

interface TextChoice extends Choice {
  readonly fields: Fields;
}

/** Collects the chunks of a text completion: `text` is joined, the lists of `logprobs` are appended. */
export class CompletionCollector extends ChoicesCollector<TextChoice> {
  constructor() {
    super("text_completion");
  }

  protected newChoice(): TextChoice {
    return { fields: emptyFields({ text: "" }), rest: emptyFields(), logprobs: new Logprobs() };
  }

  protected addField({ fields }: TextChoice, key: string, value: unknown): boolean {
    if (key !== "text") return false;
    this.merge.append(fields, key, value);
    return true;
  }

  protected fieldsOf({ fields }: TextChoice): Fields {
    return fields;
  }
}
