import { GrowingBuffer } from "../../lib/growing-buffer.ts";

/** Reads a body as text. A longer one than `maxBytes` is cut there, and its connection is closed. */
export async function readText(body: AsyncIterable<Buffer>, maxBytes: number): Promise<string> {
  const text = new GrowingBuffer(maxBytes);
  // Leaving the loop destroys the body, and with it the connection.
  for await (const piece of body) if (!text.push(piece)) break;
  return text.take().toString("utf8");
}

/** In words, or by Node's code, why a request of our own came to nothing; nothing secret. */
export function whyNoAnswer(error: unknown, timeoutMs: number): string {
  if (error instanceof SyntaxError) return "no JSON";
  if (!(error instanceof Error)) return "no answer";
  // Its code is a number, as those of all that the web's interfaces throw.
  if (error.name === "TimeoutError") return notWithin(timeoutMs);
  return "code" in error && typeof error.code === "string" ? error.code : "no answer";
}

export function notWithin(ms: number): string {
  return `no answer within ${ms / 1000} s`;
}
