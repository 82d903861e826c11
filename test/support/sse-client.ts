import { request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from "node:http";
import { StringDecoder } from "node:string_decoder";
import { createMailbox } from "./mailbox.ts";

/** One block of an event stream, up to its blank line. */
export interface SseEvent {
  /** As it came, without the blank line. */
  readonly raw: string;
  /** The `data:` lines joined; undefined where there is none. */
  readonly data: string | undefined;
  /** `event:`, where there is one. */
  readonly event: string | undefined;
  /** The text of a comment; undefined where the block is none. */
  readonly comment: string | undefined;
  /** The parsed data; undefined for [DONE], comments and bad JSON. */
  readonly json: StreamJson | undefined;
}

/** What tests look at in an event: a chunk's fields, or an error's. A view for convenience; nothing has checked it. */
interface StreamJson {
  readonly id: string;
  readonly model: string;
  readonly choices: readonly [StreamChoice];
  readonly usage?: Readonly<Record<string, number>> | null;
  readonly error?: Readonly<Record<string, unknown>>;
}

interface StreamChoice {
  readonly delta: {
    readonly role?: string;
    readonly content?: string | null;
    readonly reasoning_content?: string | null;
    readonly tool_calls?: readonly [{ readonly index: number; readonly function: { readonly arguments: string } }];
  };
  readonly finish_reason?: string | null;
}

/** A client that sees every event when it arrives and controls its socket. */
export interface SseClient {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** All that has arrived, decoded. */
  readonly text: string;
  /** "complete" where the answer ended as HTTP says, "aborted" where the connection broke or was left. */
  readonly ended: Promise<"complete" | "aborted">;
  /** The next event, comments included; undefined once the answer is over. */
  nextEvent(waitMs?: number): Promise<SseEvent | undefined>;
  /** All further events. */
  rest(): Promise<readonly SseEvent[]>;
  /** Stops reading the socket, as a program that hangs does; the kernel's buffers then fill. */
  pause(): void;
  resume(): void;
  /** Destroys the socket. */
  leave(): void;
}

export interface StreamRequest {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as it is where it is a string, as JSON otherwise; none sends a GET. */
  readonly body?: unknown;
  /** Called with a way to leave before the headers have come. */
  readonly onSent?: (leave: () => void) => void;
}

/** Sends a request on a connection of its own; resolves when the response's headers have come. */
export function openStream(url: string, options: StreamRequest = {}): Promise<SseClient> {
  const { body, headers, onSent } = options;
  const payload = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const request = httpRequest(url, {
      method: options.method ?? (payload === undefined ? "GET" : "POST"),
      agent: false,
      headers: {
        ...(payload === undefined
          ? {}
          : { "content-type": "application/json", "content-length": Buffer.byteLength(payload) }),
        ...headers,
      },
    });
    request.once("response", (response) => {
      resolve(clientOf(response));
    });
    // Also after the response: its own `close` tells the story then.
    request.on("error", reject);
    request.end(payload, () => onSent?.(() => request.destroy()));
  });
}

function clientOf(response: IncomingMessage): SseClient {
  const events = createMailbox<SseEvent | undefined>("event");
  const decoder = new StringDecoder("utf8");
  const pieces: string[] = [];
  let unparsed: string[] = [];
  let lastThree = "";
  let over = false;

  response.on("error", () => undefined);
  response.on("data", (bytes: Buffer) => {
    const piece = decoder.write(bytes);
    pieces.push(piece);
    unparsed.push(piece);
    // Only what is new is searched, so that an event of many MB costs no square of its size.
    const searched = lastThree + piece;
    lastThree = searched.slice(-3);
    if (/\n\r?\n/.test(searched)) parseBlocks();
  });
  const ended = new Promise<"complete" | "aborted">((resolve) => {
    response.once("close", () => {
      over = true;
      events.put(undefined);
      resolve(response.complete ? "complete" : "aborted");
    });
  });

  function parseBlocks(): void {
    const blocks = unparsed.join("").split(/\r?\n\r?\n/);
    unparsed = [blocks.pop() ?? ""];
    for (const raw of blocks) if (raw.trim() !== "") events.put(eventOf(raw));
  }

  async function nextEvent(waitMs?: number): Promise<SseEvent | undefined> {
    const event = await events.take(waitMs);
    // The end stays the end, however often it is asked for.
    if (event === undefined && over) events.put(undefined);
    return event;
  }

  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    get text() {
      return pieces.join("");
    },
    ended,
    nextEvent,
    async rest() {
      const all: SseEvent[] = [];
      for (let event = await nextEvent(); event !== undefined; event = await nextEvent()) all.push(event);
      return all;
    },
    pause() {
      response.pause();
      response.socket.pause();
    },
    resume() {
      response.socket.resume();
      response.resume();
    },
    leave: () => response.destroy(),
  };
}

function eventOf(raw: string): SseEvent {
  const lines = raw.split(/\r?\n/);
  const field = (name: string) =>
    lines.filter((line) => line.startsWith(`${name}:`)).map((line) => line.slice(name.length + 1).replace(/^ /, ""));
  const data = field("data");
  return {
    raw,
    data: data.length === 0 ? undefined : data.join("\n"),
    event: field("event")[0],
    comment: data.length === 0 ? field("")[0] : undefined,
    json: parsed(data.join("\n")),
  };
}

function parsed(text: string): StreamJson | undefined {
  try {
    return JSON.parse(text) as StreamJson;
  } catch {
    return undefined;
  }
}
