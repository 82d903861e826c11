import { randomUUID } from "node:crypto";
import { STATUS_CODES, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { AppError, type ErrorCode } from "../../errors.ts";
import { errorBodyFor, type FamilyHeaders } from "../anthropic-clients.ts";
import type { ReportRefusal } from "./errors.ts";
import type { Cors } from "./cors.ts";

/** Errors of Node's HTTP parser that have a status of their own. */
const parserCodes: ReadonlyMap<string, ErrorCode> = new Map<string, ErrorCode>([
  ["HPE_HEADER_OVERFLOW", "headers_too_large"],
  ["ERR_HTTP_REQUEST_TIMEOUT", "request_timeout"],
]);

/** The client has left, perhaps in the middle of a request. */
const disconnects: ReadonlySet<string> = new Set(["ECONNRESET", "EPIPE", "HPE_INVALID_EOF_STATE"]);

/** How long a refused connection may go on sending, in ms. What it sends is thrown away. */
const lingerMs = 1000;
/** How much of a request is looked at that can't be parsed, in bytes: as much as headers may have. */
const glimpseBytes = 16 << 10;

/**
 * Makes the answer to what Node's HTTP parser refuses. The connection is closed: nothing that follows on it can be
 * trusted.
 */
export function createParserErrors(options: {
  readonly reportRefusal: ReportRefusal;
  readonly cors: Cors;
}): (error: Error & { code?: string; rawPacket?: unknown }, socket: Socket) => void {
  const { reportRefusal, cors } = options;
  return (error, socket) => {
    const code = error.code ?? "";
    const response = currentResponse(socket);
    // Nobody is there to read an answer; or one is under way already, and would seem to go on with this one.
    if (disconnects.has(code) || response?.headersSent === true) {
      socket.destroy();
      return;
    }
    // What comes in behind the bytes that were refused is refused as well, and its answer is on its way.
    if (socket.writableEnded) return;
    // A connection that has never said anything has asked for nothing.
    if (socket.bytesRead === 0) {
      socket.destroy();
      return;
    }
    const traceId = randomUUID();
    const refusal = new AppError(parserCodes.get(code) ?? "bad_http");
    reportRefusal(refusal, { traceId, ip: socket.remoteAddress ?? "" });
    const { target, headers } = response === undefined ? parseHead(error.rawPacket) : requestOf(response);
    const body = JSON.stringify(errorBodyFor(target, headers)(refusal, traceId));
    const pages = cors.enabled ? cors.headersFor(target, headers.origin) : {};
    socket.end(rawResponse(refusal, traceId, body, pages));
    if (response === undefined) {
      // Closing before all has been read resets the connection, and the client would lose the answer.
      setTimeout(cut, lingerMs, socket).unref();
    } else {
      // The rest of a request that is being read, or one behind a request that is being served: that one ends too.
      socket.destroySoon();
    }
  };
}

/** The response that Node is going to write, or is writing, on the connection. */
function currentResponse(socket: Socket & { _httpMessage?: ServerResponse | null }): ServerResponse | undefined {
  return socket._httpMessage ?? undefined;
}

/** What an answer's shape depends on. */
interface RequestHead {
  readonly target: string;
  readonly headers: FamilyHeaders;
}

function requestOf({ req: { url = "", headers } }: ServerResponse): RequestHead {
  return { target: url, headers };
}

/** The same of a request that the parser gave up before it knew its headers: as much as stands in its first bytes. */
function parseHead(packet: unknown): RequestHead {
  const text = Buffer.isBuffer(packet) ? packet.toString("latin1", 0, glimpseBytes) : "";
  const [first = "", ...lines] = text.split("\r\n");
  const valueOf = (name: string): string | undefined => {
    const line = lines.find((one) => one.slice(0, name.length + 1).toLowerCase() === `${name}:`);
    return line?.slice(name.length + 1).trim();
  };
  return {
    target: first.split(" ", 2)[1] ?? "",
    headers: { origin: valueOf("origin"), "anthropic-version": valueOf("anthropic-version") },
  };
}

function rawResponse(refusal: AppError, traceId: string, body: string, more: Readonly<Record<string, string>>): string {
  const head = [
    `HTTP/1.1 ${refusal.status} ${STATUS_CODES[refusal.status] ?? "Error"}`,
    "content-type: application/json; charset=utf-8",
    `content-length: ${Buffer.byteLength(body)}`,
    `x-request-id: ${traceId}`,
    // From a request that was refused nothing comes in here but the origins that the config lists.
    ...Object.entries(more).map(([name, value]) => `${name}: ${value}`),
    "connection: close",
  ];
  return `${head.join("\r\n")}\r\n\r\n${body}`;
}

function cut(socket: Socket): void {
  socket.destroy();
}
