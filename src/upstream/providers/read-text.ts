import { GrowingBuffer } from "../../lib/growing-buffer.ts";

/** Reads a body as text. A longer one than `maxBytes` is cut there, and its connection is closed. */
export async function readText(body: AsyncIterable<Buffer>, maxBytes: number): Promise<string> {
  const text = new GrowingBuffer(maxBytes);
  // Leaving the loop destroys the body, and with it the connection.
  for await (const piece of body) if (!text.push(piece)) break;
  return text.take().toString("utf8");
}
