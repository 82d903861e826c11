/** One event of the Responses API, as it stands on the wire; numbers are given by `responseStream`. */
export function responseEvent(type: string, fields: object = {}, sequence_number = 0): string {
  return `event: response.${type}\ndata: ${JSON.stringify({ type: `response.${type}`, sequence_number, ...fields })}\n\n`;
}

const head = { id: "resp_1", object: "response", created_at: 1_752_169_304, model: "flash" };
const message = { id: "msg_1", type: "message", role: "assistant", status: "in_progress", content: [] };
const part = { type: "output_text", text: "Hello 你好 🎉", annotations: [] };

/** The message when it is complete. */
export const wholeMessage = { ...message, status: "completed", content: [part] };

/** What the last event reports, in the ledger's words. */
export const responseUsage = { input: 20, cached: 5, output: 7, reasoning: 2 };
const usage = {
  input_tokens: 20,
  input_tokens_details: { cached_tokens: 5 },
  output_tokens: 7,
  output_tokens_details: { reasoning_tokens: 2 },
  total_tokens: 27,
};

export const created = responseEvent("created", {
  response: { ...head, status: "in_progress", output: [], usage: null },
});

export function outputDelta(delta: string, sequence_number = 3): string {
  return responseEvent(
    "output_text.delta",
    { item_id: "msg_1", output_index: 0, content_index: 0, delta },
    sequence_number,
  );
}

export const opened = [
  responseEvent("output_item.added", { output_index: 0, item: message }, 1),
  responseEvent(
    "content_part.added",
    { item_id: "msg_1", output_index: 0, content_index: 0, part: { ...part, text: "" } },
    2,
  ),
];

/** All that comes between the first event and the last. */
export const responseText = [
  ...opened,
  outputDelta("Hel", 3),
  outputDelta("lo 你好 🎉", 4),
  responseEvent("output_text.done", { item_id: "msg_1", output_index: 0, content_index: 0, text: part.text }, 5),
  responseEvent("content_part.done", { item_id: "msg_1", output_index: 0, content_index: 0, part }, 6),
  responseEvent("output_item.done", { output_index: 0, item: wholeMessage }, 7),
];

/** The response as the last event has it. */
export function wholeResponse(changes: object = {}): object {
  return {
    ...head,
    status: "completed",
    error: null,
    incomplete_details: null,
    output: [wholeMessage],
    usage,
    ...changes,
  };
}

export function lastEvent(type: "completed" | "incomplete" | "failed" = "completed", changes: object = {}): string {
  return responseEvent(type, { response: wholeResponse({ status: type, ...changes }) }, 8);
}
