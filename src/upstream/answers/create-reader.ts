import type { AnswerFacts } from "./answer-facts.ts";
import { AnswerReader } from "./answer-reader.ts";
import { ChatFacts } from "./chat-facts.ts";
import { JsonAnswerReader } from "./json-answer-reader.ts";
import { MessageFacts } from "./message-facts.ts";
import type { ApiName, Provider } from "../providers/provider.ts";
import type { AnswerSink, Reader } from "./reader.ts";
import { unfoldChoices, unfoldMessage } from "./unfold.ts";

type StreamedApi = Exclude<ApiName, "embeddings">;

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
  if (api === "embeddings") return createWholeReader(api, provider, sink);
  return new AnswerReader(provider, sink, factsOf(api), collects, choices);
}

/** What reads an API's answer that is one JSON, whether or not a stream was asked for. */
export function createWholeReader(api: ApiName, provider: Provider, sink: AnswerSink): Reader {
  if (api === "embeddings") return new JsonAnswerReader(provider, sink, null);
  const unfold = api === "messages" ? unfoldMessage : unfoldChoices;
  return new JsonAnswerReader(provider, sink, { facts: factsOf(api), unfold });
}

function factsOf(api: StreamedApi): AnswerFacts {
  return api === "messages" ? new MessageFacts() : new ChatFacts();
}
