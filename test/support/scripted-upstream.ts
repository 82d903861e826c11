import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { createMailbox } from "./mailbox.ts";

/** One request that has arrived in full, answered by hand. */
interface UpstreamCall {
  readonly method: string;
  /** Path and query. */
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  /** Names and values as they came, so that repeats and case show. */
  readonly rawHeaders: readonly string[];
  readonly rawBody: Buffer;
  /** The parsed JSON, or undefined where the body is none. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- tests look into any JSON
  readonly body: any;
  /** Resolves when the connection is gone or the answer has ended, whichever is first. */
  readonly closed: Promise<void>;
  /** Whether the other side closed before the answer ended. */
  readonly left: boolean;
  /** Sends the headers at once; by default 200 and an event stream. */
  head(status?: number, headers?: Readonly<Record<string, string>>): void;
  /** Sends bytes as they are; resolves when they have left the process. Sends the default head if none was sent. */
  send(bytes: string | Buffer): Promise<void>;
  /** Sends `data: JSON` and a blank line. */
  event(data: unknown): Promise<void>;
  /** Sends a text delta as DeepSeek does. */
  delta(content: string): Promise<void>;
  /** Sends the finish chunk with its usage, and [DONE]; then ends. */
  finish(usage?: Readonly<Record<string, unknown>> | null, reason?: string): Promise<void>;
  comment(text?: string): Promise<void>;
  done(): Promise<void>;
  /** Ends the answer cleanly. */
  end(): void;
  /** Answers in one go with JSON, or with text where the body is a string. */
  respond(status: number, body: unknown, headers?: Readonly<Record<string, string>>): void;
  /** Resets the connection (RST). What was sent before is gone unless the other side has read it. */
  reset(): void;
}

/** A provider that a test plays by hand over a real socket. */
export interface ScriptedUpstream {
  /** `http://127.0.0.1:PORT`. */
  readonly url: string;
  /** Requests that have arrived so far. */
  readonly received: number;
  /** Answers that have neither ended nor been left. */
  readonly open: number;
  /** TCP connections that are open. */
  connections(): Promise<number>;
  /** The next request; waits for it. */
  next(waitMs?: number): Promise<UpstreamCall>;
  close(): Promise<void>;
}

/** Starts one on a free port of 127.0.0.1. */
export async function startScriptedUpstream(): Promise<ScriptedUpstream> {
  const calls = createMailbox<UpstreamCall>("upstream request");
  let received = 0;
  let open = 0;

  const server = createServer((request, response) => {
    open++;
    response.once("close", () => open--);
    void readAll(request).then((rawBody) => {
      received++;
      calls.put(callOf(request, response, rawBody));
    }, ignore);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;

  return {
    url: `http://127.0.0.1:${port}`,
    get received() {
      return received;
    },
    get open() {
      return open;
    },
    connections: () =>
      new Promise((resolve, reject) => {
        server.getConnections((error, count) => {
          if (error === null) resolve(count);
          else reject(error);
        });
      }),
    next: (waitMs) => calls.take(waitMs),
    close: () =>
      new Promise((resolve) => {
        server.close(() => {
          resolve();
        });
        server.closeAllConnections();
      }),
  };
}

function callOf(request: IncomingMessage, response: ServerResponse, rawBody: Buffer): UpstreamCall {
  response.on("error", ignore);

  const call: UpstreamCall = {
    method: request.method ?? "",
    url: request.url ?? "",
    headers: request.headers,
    rawHeaders: request.rawHeaders,
    rawBody,
    body: parsed(rawBody),
    closed: new Promise((resolve) => {
      if (response.closed) resolve();
      else response.once("close", resolve);
    }),
    get left() {
      return response.closed && !response.writableFinished;
    },
    head(status = 200, headers = {}) {
      response.writeHead(status, { "content-type": "text/event-stream; charset=utf-8", ...headers });
      response.flushHeaders();
    },
    send(bytes) {
      if (!response.headersSent) call.head();
      return new Promise((resolve, reject) => {
        response.write(bytes, (error) => {
          if (error == null) resolve();
          else reject(error);
        });
      });
    },
    event: (data) => call.send(`data: ${JSON.stringify(data)}\n\n`),
    delta: (content) => call.event(chunk({ delta: { content }, finish_reason: null }, null)),
    async finish(usage = { prompt_tokens: 5, completion_tokens: 7, total_tokens: 12 }, reason = "stop") {
      await call.event(chunk({ delta: { content: "" }, finish_reason: reason }, usage));
      await call.done();
      call.end();
    },
    comment: (text = "keep-alive") => call.send(`: ${text}\n\n`),
    done: () => call.send("data: [DONE]\n\n"),
    end() {
      if (!response.headersSent) call.head();
      response.end();
    },
    respond(status, body, headers = {}) {
      const isText = typeof body === "string";
      response.writeHead(status, { "content-type": isText ? "text/plain" : "application/json", ...headers });
      response.end(isText ? body : JSON.stringify(body));
    },
    reset: () => response.socket?.resetAndDestroy(),
  };
  return call;
}

function chunk(choice: object, usage: unknown): object {
  return {
    id: "chatcmpl-scripted",
    object: "chat.completion.chunk",
    created: 1_752_169_304,
    model: "deepseek-flash",
    choices: [{ index: 0, logprobs: null, ...choice }],
    usage,
  };
}

async function readAll(request: IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of request) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}

function parsed(rawBody: Buffer): unknown {
  try {
    return JSON.parse(rawBody.toString());
  } catch {
    return undefined;
  }
}

function ignore(): void {
  // The other side has left; `left` and `closed` say so.
}
