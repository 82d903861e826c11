import { GrowingBuffer } from "../lib/growing-buffer.ts";
import { codingsIn } from "../lib/content-codings.ts";
import { TunnelError } from "./forward-proxy.ts";
import { decodeWhole, isDecodable } from "./stream/body-decoder.ts";

interface Response {
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: AsyncIterable<Buffer>;
}

/**
 * Reads a body as text, also one in a content coding that was not requested. If it is longer than `maxBytes` it is cut
 * there, and its connection is closed.
 */
export async function readText({ headers, body }: Response, maxBytes: number): Promise<string> {
  const bytes = new GrowingBuffer(maxBytes);
  // Leaving the loop destroys the body, and with it the connection.
  for await (const piece of body) if (!bytes.push(piece)) break;
  const read = bytes.take();
  const codings = codingsIn(String(headers["content-encoding"] ?? ""));
  const [coding] = codings;
  if (coding === undefined || !isDecodable(codings)) return read.toString("utf8");
  // If it can't be decoded the raw bytes are returned: a JSON parser will reject them.
  return (await decodeWhole(read, coding, maxBytes).catch(() => read)).toString("utf8");
}

/** Why one of our own requests failed: text or Node's error code, nothing secret. */
export function failureReason(error: unknown, timeoutMs: number): string {
  if (error instanceof SyntaxError) return "no JSON";
  if (!(error instanceof Error)) return "no answer";
  // Its code is a number, as in all DOMExceptions.
  if (error.name === "TimeoutError") return timeoutReason(timeoutMs);
  if (error instanceof TunnelError) return error.message;
  return "code" in error && typeof error.code === "string" ? error.code : "no answer";
}

export function timeoutReason(ms: number): string {
  return `no answer within ${ms / 1000} s`;
}
