import { errorBody, type AppError } from "../../errors.ts";
import { replaceMembers } from "../../lib/json-object.ts";
import type { ApiShape } from "../api-shape.ts";
import { MessageCollector } from "./message-collector.ts";
import { checkMessages, readModel, readStream, readTokens } from "./request-checks.ts";

const ping = Buffer.from('event: ping\ndata: {"type":"ping"}\n\n');

/** Anthropic's messages. */
export const messages: ApiShape = {
  parse(body, streamByDefault) {
    const { value } = body;
    const model = readModel(value);
    checkMessages(value);
    const stream = readStream(value) ?? streamByDefault;
    return {
      api: "messages",
      model,
      stream,
      collects: !stream,
      wantsUsageChunk: false,
      maxTokens: readTokens(value, "max_tokens"),
      choices: 1,
      bytes: body.bytes.length,
      sparesStreamOptions: false,
      bodyFor: (upstreamModel) =>
        replaceMembers(body, {
          ...(value.stream === true ? {} : { stream: "true" }),
          ...(model === upstreamModel ? {} : { model: JSON.stringify(upstreamModel) }),
        }),
    };
  },
  createCollector: () => new MessageCollector(),
  ending: Buffer.from('event: message_stop\ndata: {"type":"message_stop"}\n\n'),
  heartbeat: ping,
  // It has data.
  heartbeatAfterIds: ping,
  errorBody: messageErrorBody,
  errorEvent: (error, traceId) => `event: error\ndata: ${JSON.stringify(messageErrorBody(error, traceId))}\n\n`,
};

/** Anthropic's names of errors, by HTTP status. */
const errorTypes: ReadonlyMap<number, string> = new Map([
  [402, "billing_error"],
  [404, "not_found_error"],
  [413, "request_too_large"],
  [503, "overloaded_error"],
  [504, "timeout_error"],
]);

/** Anthropic's shape, with what our own errors have besides: `code`, `param`, `trace_id` and `details`. */
function messageErrorBody(error: AppError, traceId: string): object {
  const own = errorBody(error, traceId).error;
  const type = errorTypes.get(error.status) ?? own.type;
  return { type: "error", error: { ...own, type }, request_id: traceId };
}
