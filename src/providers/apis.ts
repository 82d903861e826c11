import { ChoicesParser } from "./stream/choices-parser.ts";
import type { EventParser, Fields } from "./stream/event-parser.ts";
import { MessagesParser } from "./stream/messages-parser.ts";
import { ResponsesParser, unfoldResponse } from "./stream/responses-parser.ts";
import { unfoldChoices, type UnfoldedEvent, unfoldMessage } from "./stream/unfold.ts";

/** An API that providers may have: how its responses are read, whichever provider sends them. */
interface Api {
  /** As messages for clients name it. */
  readonly title: string;
  /** Below the base URL of a provider that has it where OpenAI does; null if OpenAI doesn't have it. */
  readonly path: string | null;
  /** null for an API that never streams, and whose responses are passed on in one piece. */
  readonly stream: StreamReading | null;
}

/** How the events of an API are read. */
export interface StreamReading {
  readonly createParser: () => EventParser;
  /** The events of a response that came as one JSON though a stream was requested. */
  readonly unfold: (response: Fields) => Iterable<UnfoldedEvent>;
}

const chats: StreamReading = { createParser: () => new ChoicesParser("chat"), unfold: unfoldChoices };
const texts: StreamReading = { createParser: () => new ChoicesParser("completions"), unfold: unfoldChoices };
const messages: StreamReading = { createParser: () => new MessagesParser(), unfold: unfoldMessage };

const responses: StreamReading = { createParser: () => new ResponsesParser(), unfold: unfoldResponse };

/** Every API, once. A kind of provider says which of them it has, and where. */
export const apis = {
  chat: { title: "chats", path: "/chat/completions", stream: chats },
  /** Chats that need DeepSeek's beta URL; elsewhere the same as `chat`. */
  beta_chat: { title: "chats", path: "/chat/completions", stream: chats },
  completions: { title: "text completions", path: "/completions", stream: texts },
  messages: { title: "Anthropic's messages", path: null, stream: messages },
  responses: { title: "the Responses API", path: "/responses", stream: responses },
  embeddings: { title: "embeddings", path: "/embeddings", stream: null },
} as const satisfies Readonly<Record<string, Api>>;

export type ApiName = keyof typeof apis;

export const apiNames = Object.keys(apis) as readonly ApiName[];
