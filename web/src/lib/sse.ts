/** An event of a stream. */
export interface ServerEvent {
  readonly id: string;
  readonly type: string;
  /** "" where an id came alone: it says where the stream is. */
  readonly data: string;
}

/** Reads server-sent events until the response ends. fetch instead of EventSource: it sends POST, and shows a 401. */
export async function* readEvents(response: Response): AsyncGenerator<ServerEvent> {
  if (response.body === null) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let id = "";
  let isNewId = false;
  let type = "message";
  let data: string[] = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop() ?? "";
      for (const line of lines) {
        if (line === "") {
          if (data.length > 0 || isNewId) yield { id, type, data: data.join("\n") };
          isNewId = false;
          type = "message";
          data = [];
          continue;
        }
        const colon = line.indexOf(":");
        const field = colon < 0 ? line : line.slice(0, colon);
        const text = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (field === "data") data.push(text);
        else if (field === "event") type = text;
        else if (field === "id") {
          id = text;
          isNewId = true;
        }
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
