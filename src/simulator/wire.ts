import type { Answer, Usage } from "./answer.ts";
import { chatBody, chatEvents, type Envelope } from "./chat-wire.ts";
import { completionBody, completionEvents } from "./completion-wire.ts";
import { messageBody, messageError, messageEvents } from "./message-wire.ts";
import { errorJson } from "./refusals.ts";
import type { TextApi } from "./request.ts";

/** How an API writes its answers. */
interface Wire {
  /** As SSE events, each complete with its blank line; the last one says that the answer is over. */
  events(answer: Answer, usage: Usage, envelope: Envelope): readonly string[];
  /** As one JSON. */
  body(answer: Answer, usage: Usage, envelope: Envelope): string;
  /** An error in mid-stream. */
  readonly overloaded: string;
}

const busy = "The service is overloaded, please try again later.";
const overloaded = `data: ${errorJson(busy, "server_error", "overloaded")}\n\n`;

export const wires: Readonly<Record<TextApi, Wire>> = {
  chat: { events: chatEvents, body: chatBody, overloaded },
  completions: { events: completionEvents, body: completionBody, overloaded },
  messages: {
    events: messageEvents,
    body: messageBody,
    overloaded: `event: error\ndata: ${messageError(busy, "overloaded_error")}\n\n`,
  },
};
