import { randomUUID } from "node:crypto";
import { type IncomingMessage, STATUS_CODES, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { AppError, type ErrorCode } from "../../errors.ts";
import { errorBodyFor, type FamilyHeaders } from "../anthropic-clients.ts";
import type { ReportRefusal } from "./errors.ts";
import type { Cors } from "./cors.ts";

/** Errors of Node's HTTP parser that have their own status. */
const parserCodes: ReadonlyMap<string, ErrorCode> = new Map<string, ErrorCode>([
  ["HPE_HEADER_OVERFLOW", "headers_too_large"],
  ["ERR_HTTP_REQUEST_TIMEOUT", "request_timeout"],
]);

/** The code of a request for a tunnel, which is not an error of the parser. */
const tunnelCode = "TUNNEL";

/** The client disconnected, perhaps during a request. */
const disconnects: ReadonlySet<string> = new Set(["ECONNRESET", "EPIPE", "HPE_INVALID_EOF_STATE"]);

/** How long a refused connection may continue to send, in ms. The data is discarded. */
const lingerMs = 1000;
/** How much of an unparsable request to examine, in bytes: the maximum size of headers. */
const examinedBytes = 16 << 10;

/**
 * Creates the response to requests that Node's HTTP parser refuses. The connection is closed: nothing after the error
 * can be trusted.
 */
export function createParserErrors(options: {
  readonly reportRefusal: ReportRefusal;
  readonly cors: () => Cors;
}): (error: Error & { code?: string; rawPacket?: unknown }, socket: Socket) => void {
  const { reportRefusal } = options;
  return (error, socket) => {
    const code = error.code ?? "";
    const response = currentResponse(socket);
    if (disconnects.has(code)) {
      socket.destroy();
      return;
    }
    // Data after the refused bytes is refused as well, and its response is already on its way.
    if (socket.writableEnded) return;
    if (isAnswered(currentRequest(socket), response)) {
      // Its head was refused before its body turned out to be malformed. A second response would be one too many.
      socket.end();
      setTimeout(cut, lingerMs, socket).unref();
      return;
    }
    // A response is under way already, and this one would look like its continuation.
    if (response?.headersSent === true) {
      socket.destroy();
      return;
    }
    // A connection that has never sent anything needs no response.
    if (socket.bytesRead === 0) {
      socket.destroy();
      return;
    }
    const traceId = randomUUID();
    const refusal =
      code === tunnelCode
        ? new AppError("bad_http", { message: "This server opens no tunnels: CONNECT is not served." })
        : new AppError(parserCodes.get(code) ?? "bad_http");
    reportRefusal(refusal, { traceId, ip: socket.remoteAddress ?? "" });
    const { target, headers } = response === undefined ? parseHead(error.rawPacket) : requestOf(response);
    const body = JSON.stringify(errorBodyFor(target, headers)(refusal, traceId));
    const cors = options.cors();
    const pages = cors.enabled ? cors.headersFor(target, headers.origin) : {};
    socket.end(rawResponse(refusal, traceId, body, pages));
    if (response === undefined) {
      // Closing before everything is read resets the connection, and the client would lose the response.
      setTimeout(cut, lingerMs, socket).unref();
    } else {
      // This is the rest of a request that is being read, or data behind a request that is being served: that request
      // ends too.
      socket.destroySoon();
    }
  };
}

/** Refuses CONNECT like a request that is not well-formed: Node would close its connection without a response. */
export function refuseTunnels(server: Server, refuse: ReturnType<typeof createParserErrors>): void {
  server.on("connect", (_request, socket: Socket) => {
    // From here on Node looks after this socket no longer.
    socket.on("error", () => {
      socket.destroy();
    });
    socket.resume();
    refuse(Object.assign(new Error("a tunnel was asked for"), { code: tunnelCode }), socket);
  });
}

/** The response that Node is writing, or will write, on the connection. */
function currentResponse(socket: Socket & { _httpMessage?: ServerResponse | null }): ServerResponse | undefined {
  return socket._httpMessage ?? undefined;
}

/** The request that Node's parser is reading, or has read last, on the connection. */
function currentRequest(socket: Socket & { parser?: { incoming?: IncomingMessage | null } | null }) {
  return socket.parser?.incoming ?? undefined;
}

/** Whether the body of a request is still arriving although its response is sent. */
function isAnswered(request: IncomingMessage | undefined, response: ServerResponse | undefined): boolean {
  if (request === undefined || request.complete) return false;
  return response === undefined || (response.req === request && response.headersSent);
}

/** The parts of a request that determine the format of its error. */
interface RequestHead {
  readonly target: string;
  readonly headers: FamilyHeaders;
}

function requestOf({ req: { url = "", headers } }: ServerResponse): RequestHead {
  return { target: url, headers };
}

/** The same for a request that failed before its headers were parsed: whatever its first bytes contain. */
function parseHead(packet: unknown): RequestHead {
  const text = Buffer.isBuffer(packet) ? packet.toString("latin1", 0, examinedBytes) : "";
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
    // The only values from a refused request are origins that the config lists.
    ...Object.entries(more).map(([name, value]) => `${name}: ${value}`),
    "connection: close",
  ];
  return `${head.join("\r\n")}\r\n\r\n${body}`;
}

function cut(socket: Socket): void {
  socket.destroy();
}
