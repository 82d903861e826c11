import { errorBody } from "../../errors.ts";
import type { ApiShape } from "../api-shape.ts";

/** What OpenAI's APIs have in common on the wire; a comment is nothing to their clients. */
export const openaiWire: Pick<ApiShape, "ending" | "heartbeat" | "heartbeatAfterIds" | "errorBody" | "errorEvent"> = {
  ending: Buffer.from("data: [DONE]\n\n"),
  heartbeat: Buffer.from(": keep-alive\n\n"),
  heartbeatAfterIds: Buffer.from(": keep-alive\n"),
  errorBody,
  errorEvent: (error, traceId) => `data: ${JSON.stringify(errorBody(error, traceId))}\n\n`,
};
