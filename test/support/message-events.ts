import type { ScriptedUpstream } from "./scripted-upstream.ts";

type UpstreamCall = Awaited<ReturnType<ScriptedUpstream["next"]>>;

/** One event of Anthropic's, as it stands on the wire. */
export function messageEvent(type: string, fields: object = {}): string {
  return `event: ${type}\ndata: ${JSON.stringify({ type, ...fields })}\n\n`;
}

/** The first event, with the prompt's tokens: 12 fresh, 3 into the cache, 5 out of it. */
export const messageStart = messageEvent("message_start", {
  message: {
    id: "msg_1",
    type: "message",
    role: "assistant",
    model: "flash",
    content: [],
    stop_reason: null,
    stop_sequence: null,
    usage: { input_tokens: 12, cache_creation_input_tokens: 3, cache_read_input_tokens: 5, output_tokens: 1 },
  },
});

/** What `messageStart` and `messageEnd` say together, in the ledger's words. */
export const messageUsage = { input: 20, cached: 5, output: 7 };

export function textDelta(text: string): string {
  return messageEvent("content_block_delta", { index: 0, delta: { type: "text_delta", text } });
}

/** All that comes between the first event and the last two. */
export const messageText = [
  messageEvent("content_block_start", { index: 0, content_block: { type: "text", text: "" } }),
  messageEvent("ping"),
  textDelta("Hel"),
  textDelta("lo 你好 🎉"),
  messageEvent("content_block_stop", { index: 0 }),
];

export function messageDelta(usage: object | null = { output_tokens: 7 }, stop_reason: string | null = "end_turn") {
  return messageEvent("message_delta", { delta: { stop_reason, stop_sequence: null }, ...(usage && { usage }) });
}

export const messageStop = messageEvent("message_stop");

/** Sends all of a good answer and ends. */
export async function answerMessage(call: UpstreamCall): Promise<void> {
  await call.send([messageStart, ...messageText, messageDelta(), messageStop].join(""));
  call.end();
}
