/**
 * The data of each event of a stream (Server-Sent Events), without comments and empty events.
 *
 * @param body the stream's bytes; cancelled when the caller stops reading
 */
export async function* eventsOf(body: ReadableStream<Uint8Array>): AsyncGenerator<string, void, undefined> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  // Pieces of a line that hasn't ended: joined once, so that a long line in many pieces costs no more than its length.
  let pieces: string[] = [];
  let data: string[] = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const text = decoder.decode(value, { stream: true });
      let start = 0;
      for (let end = text.indexOf("\n"); end !== -1; end = text.indexOf("\n", start)) {
        pieces.push(text.slice(start, end));
        const line = withoutCr(pieces.join(""));
        pieces = [];
        start = end + 1;
        if (line.startsWith("data:")) data.push(line.slice(line.startsWith("data: ") ? 6 : 5));
        if (line !== "" || data.length === 0) continue;
        const event = data.join("\n");
        data = [];
        if (event !== "") yield event;
      }
      pieces.push(text.slice(start));
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

function withoutCr(line: string): string {
  return line.endsWith("\r") ? line.slice(0, -1) : line;
}
