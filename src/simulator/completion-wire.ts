import type { Answer, Usage } from "./answer.ts";
import { doneEvent, fingerprint, usageJson, type Envelope } from "./chat-wire.ts";

/** The SSE events of a text completion, as DeepSeek streams them. */
export function completionEvents(answer: Answer, usage: Usage, envelope: Envelope): readonly string[] {
  const { usageMode } = envelope;
  const chunk = (text: string, finishReason: string | null, reported: object | null): string =>
    `data: ${JSON.stringify({ ...headOf(envelope), choices: [choiceOf(text, finishReason)], usage: reported })}\n\n`;
  const last = chunk("", answer.finishReason, usageMode === "none" ? null : usageJson(usage, envelope));
  return [...answer.content.map((token) => chunk(token, null, null)), last, doneEvent];
}

/** The body of a text completion that isn't streamed. */
export function completionBody(answer: Answer, usage: Usage, envelope: Envelope): string {
  const choices = [choiceOf(answer.content.join(""), answer.finishReason)];
  const reported = envelope.usageMode === "none" ? {} : { usage: usageJson(usage, envelope) };
  return JSON.stringify({ ...headOf(envelope), choices, ...reported });
}

function headOf({ id, created, model }: Envelope): object {
  return { id, object: "text_completion", created, model, system_fingerprint: fingerprint };
}

function choiceOf(text: string, finishReason: string | null): object {
  return { index: 0, text, logprobs: null, finish_reason: finishReason };
}
