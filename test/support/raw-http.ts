import { connect, type Socket } from "node:net";
import { eventually } from "./eventually.ts";

/** An answer that was read from a bare socket. */
export interface RawAnswer {
  readonly status: number;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** A connection whose bytes a test writes itself. */
export interface RawConnection {
  readonly socket: Socket;
  /** All that has come so far, as Latin-1. */
  readonly received: () => string;
  /** The next answer that has come in full; it must have a Content-Length. */
  answer(): Promise<RawAnswer>;
  /** Resolves when the connection is gone, whoever ended it. */
  readonly closed: Promise<void>;
}

/** Opens a connection and writes the bytes. */
export function sendRaw(url: string, bytes: string | Buffer): RawConnection {
  const { port, hostname } = new URL(url);
  const socket = connect({ port: Number(port), host: hostname, noDelay: true });
  let received = "";
  let taken = 0;
  socket.on("data", (chunk: Buffer) => (received += chunk.toString("latin1")));
  socket.on("error", () => undefined);
  const closed = new Promise<void>((resolve) => socket.once("close", resolve));
  socket.write(bytes);
  return {
    socket,
    received: () => received,
    closed,
    async answer() {
      let end = 0;
      await eventually(() => {
        end = endOfAnswer(received, taken);
      });
      const text = received.slice(taken, end);
      taken = end;
      return parse(text);
    },
  };
}

/** A request's text, with a Host header, the other headers as lines, and a body behind its Content-Length. */
export function rawRequest(line: string, headers: readonly string[] = [], body?: string): string {
  const length = body === undefined ? [] : [`Content-Length: ${Buffer.byteLength(body)}`];
  return [`${line} HTTP/1.1`, "Host: proxy", ...headers, ...length, "", body ?? ""].join("\r\n");
}

function endOfAnswer(text: string, start: number): number {
  const bodyAt = text.indexOf("\r\n\r\n", start) + 4;
  if (bodyAt < 4) throw new Error(`no whole head of an answer in ${JSON.stringify(text.slice(start, start + 300))}`);
  const length = /\r\ncontent-length: (\d+)\r\n/i.exec(text.slice(start, bodyAt))?.[1];
  if (length === undefined) throw new Error(`no content-length in ${JSON.stringify(text.slice(start, bodyAt))}`);
  if (text.length < bodyAt + Number(length)) throw new Error("the answer's body is not whole");
  return bodyAt + Number(length);
}

function parse(text: string): RawAnswer {
  const bodyAt = text.indexOf("\r\n\r\n") + 4;
  const [first = "", ...lines] = text.slice(0, bodyAt - 4).split("\r\n");
  const headers = lines.map((line) => {
    const colon = line.indexOf(":");
    return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
  });
  return {
    status: Number(first.split(" ")[1]),
    headers: Object.fromEntries(headers) as Record<string, string>,
    body: Buffer.from(text.slice(bodyAt), "latin1").toString(),
  };
}
