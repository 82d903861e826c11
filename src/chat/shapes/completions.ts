import type { ApiShape } from "../api-shape.ts";
import { CompletionCollector } from "./completion-collector.ts";
import { openaiWire } from "./openai-wire.ts";
import { countPrompts, readCount, readModel, readStream, readStreamOptions, readTokens } from "./request-checks.ts";
import { sparesStreamOptions, streamingBody } from "./streaming-body.ts";

const maxChoices = 128;

/** OpenAI's text completions, with `suffix` to fill in the middle. */
export const completions: ApiShape = {
  ...openaiWire,
  parse(body, streamByDefault) {
    const { value } = body;
    const model = readModel(value);
    const prompts = countPrompts("prompt", value.prompt);
    const stream = readStream(value) ?? streamByDefault;
    const streamOptions = readStreamOptions(value);
    // Of `best_of` answers all are generated, and billed, though `n` are shown.
    const generated = Math.max(readCount(value, "n", maxChoices) ?? 1, readCount(value, "best_of", maxChoices) ?? 1);
    return {
      api: "completions",
      model,
      stream,
      collects: !stream,
      wantsUsageChunk: streamOptions?.include_usage === true,
      maxTokens: readTokens(value, "max_tokens"),
      choices: generated * prompts,
      bytes: body.bytes.length,
      sparesStreamOptions: sparesStreamOptions(streamOptions),
      bodyFor: (upstreamModel, takes) => streamingBody(body, upstreamModel, streamOptions, takes),
    };
  },
  createCollector: () => new CompletionCollector(),
};
