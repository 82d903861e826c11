import { AnswerReader } from "./answer-reader.ts";
import { ChatFacts } from "./chat-facts.ts";
import { JsonAnswerReader } from "./json-answer-reader.ts";
import { MessageFacts } from "./message-facts.ts";
import type { ApiName, Provider } from "../providers/provider.ts";
import type { AnswerSink, Reader } from "./reader.ts";

/**
 * What reads the answers of an API.
 * @param collects whether the answer becomes one JSON, so that the sink needs each event parsed
 * @param choices that were asked for
 */
export function createReader(
  api: ApiName,
  collects: boolean,
  provider: Provider,
  sink: AnswerSink,
  choices = 1,
): Reader {
  switch (api) {
    case "chat":
    case "beta_chat":
    case "completions":
      return new AnswerReader(provider, sink, new ChatFacts(), collects, choices);
    case "messages":
      return new AnswerReader(provider, sink, new MessageFacts(), collects, 1);
    case "embeddings":
      return new JsonAnswerReader(provider, sink);
  }
}
