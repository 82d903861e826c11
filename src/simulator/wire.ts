import type { Completion, Usage } from "./completion.ts";
import { chatBody, chatEvents, doneEvent, type Envelope, fingerprint, usageJson } from "./chat-wire.ts";
import { messageBody, messageError, messageEvents } from "./message-wire.ts";
import { responseBody, responseEvents, responseFailed } from "./response-wire.ts";
import { errorJson } from "./refusals.ts";
import type { TextApi } from "./request.ts";

/** How an API writes its responses. */
interface Wire {
  /** What the ids of its responses begin with. */
  readonly idPrefix: string;
  /** As SSE events, each complete with its blank line; the last one ends the stream. */
  events(completion: Completion, usage: Usage, envelope: Envelope): readonly string[];
  /** As one JSON. */
  body(completion: Completion, usage: Usage, envelope: Envelope): string;
  /** An error in mid-stream. */
  readonly overloaded: string;
}

const busy = "The service is overloaded, please try again later.";
const overloaded = `data: ${errorJson(busy, "server_error", "overloaded")}\n\n`;

export const wires: Readonly<Record<TextApi, Wire>> = {
  chat: { idPrefix: "", events: chatEvents, body: chatBody, overloaded },
  completions: { idPrefix: "", events: completionEvents, body: completionBody, overloaded },
  messages: {
    idPrefix: "msg_",
    events: messageEvents,
    body: messageBody,
    overloaded: `event: error\ndata: ${messageError(busy, "overloaded_error")}\n\n`,
  },
  responses: {
    idPrefix: "resp_",
    events: responseEvents,
    body: responseBody,
    overloaded: responseFailed(busy, "server_error"),
  },
};

/** The SSE events of a text completion, as DeepSeek streams them. */
function completionEvents(completion: Completion, usage: Usage, envelope: Envelope): readonly string[] {
  const { usageMode } = envelope;
  const chunk = (text: string, finishReason: string | null, reported: object | null): string =>
    `data: ${JSON.stringify({ ...headOf(envelope), choices: [choiceOf(text, finishReason)], usage: reported })}\n\n`;
  const last = chunk("", completion.finishReason, usageMode === "none" ? null : usageJson(usage, envelope));
  return [...completion.content.map((token) => chunk(token, null, null)), last, doneEvent];
}

/** The body of a text completion that isn't streamed. */
function completionBody(completion: Completion, usage: Usage, envelope: Envelope): string {
  const choices = [choiceOf(completion.content.join(""), completion.finishReason)];
  const reported = envelope.usageMode === "none" ? {} : { usage: usageJson(usage, envelope) };
  return JSON.stringify({ ...headOf(envelope), choices, ...reported });
}

function headOf({ id, created, model }: Envelope): object {
  return { id, object: "text_completion", created, model, system_fingerprint: fingerprint };
}

function choiceOf(text: string, finishReason: string | null): object {
  return { index: 0, text, logprobs: null, finish_reason: finishReason };
}
