import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { systemClock, type Clock } from "../lib/clock.ts";
import { createChat, models } from "./chat.ts";
import { missingKey, refuse, RefusedError, type Refusal } from "./refusals.ts";
import { parseEmbeddingRequest } from "./embeddings.ts";
import { messageError } from "./message-wire.ts";
import { parseRequest, type TextApi } from "./request.ts";
import { scenarios } from "./scenarios.ts";
import { createTicker } from "./ticker.ts";

export interface SimulatorOptions {
  /** Default 127.0.0.1. */
  readonly host?: string;
  /** Default 0, any free port. */
  readonly port?: number;
  /** The only key that is accepted; by default any is. */
  readonly apiKey?: string;
  /** ms until the first token; default 200. */
  readonly firstTokenMs?: number;
  /** Default 80; 0 sends whole responses at once. */
  readonly tokensPerSecond?: number;
  /** Peak load: ms that every request queues with `: keep-alive` comments before its first token; default 0. */
  readonly queueMs?: number;
  /** ms between these comments; default 1000. */
  readonly keepAliveMs?: number;
  readonly clock?: Clock;
}

/** Counts of model requests since the start. */
interface SimulatorStats {
  readonly requests: number;
  /** In progress. */
  readonly open: number;
  /** Responded to completely, including refusals. */
  readonly completed: number;
  /** Ended early, by a disconnect of the client or a deliberate reset. */
  readonly aborted: number;
}

/** A running simulator. */
export interface Simulator {
  /** `http://127.0.0.1:PORT`; the API is there and under /v1, DeepSeek's others under /beta and /anthropic. */
  readonly url: string;
  stats(): SimulatorStats;
  /** Cuts all connections and resolves when the port is free. */
  close(): Promise<void>;
}

const tickMs = 5;
const maxBodyBytes = 64 << 20;
/** Longer than clients keep idle connections, so that none is closed under a request. */
const keepAliveTimeoutMs = 120_000;

/**
 * Starts an upstream like DeepSeek: real HTTP and SSE, responses that are a fixed function of the request, one token
 * per chunk, and errors chosen by model name (see `scenarios`). Used by the demo, the tests and the benchmark. Rejects
 * if it can't listen on the port.
 */
export async function createSimulator(options: SimulatorOptions = {}): Promise<Simulator> {
  const clock = options.clock ?? systemClock;
  const ticker = createTicker(tickMs, () => clock.monotonic());
  const counts = { requests: 0, open: 0, completed: 0, aborted: 0 };
  const chat = createChat({
    pace: {
      queueMs: options.queueMs ?? 0,
      firstTokenMs: options.firstTokenMs ?? 200,
      tokensPerSecond: options.tokensPerSecond ?? 80,
    },
    keepAliveMs: options.keepAliveMs ?? 1000,
    now: () => clock.now(),
    monotonic: () => clock.monotonic(),
    ticker,
  });

  function route(request: IncomingMessage, response: ServerResponse): void {
    response.setHeader("x-request-id", crypto.randomUUID());
    const path = request.url?.split("?", 1)[0] ?? "";
    const api = request.method === "POST" ? apiOf(path) : undefined;
    const denied = checkKey(request, options.apiKey);
    if (denied !== undefined) sendRefusal(response, denied, api);
    else if (api !== undefined) receive(api, path.includes("/beta/"), request, response);
    else if (request.method === "GET" && path.endsWith("/models")) sendJson(response, modelList);
    else if (request.method === "GET" && path.endsWith("/user/balance")) sendJson(response, balance);
    else sendRefusal(response, refuse(404, "invalid_request_error", "Not Found"));
  }

  function receive(api: SimApi, beta: boolean, request: IncomingMessage, response: ServerResponse): void {
    counts.requests++;
    counts.open++;
    response.once("close", () => {
      counts.open--;
      if (response.writableFinished) counts.completed++;
      else counts.aborted++;
    });
    const pieces: Buffer[] = [];
    let size = 0;
    request.on("data", (piece: Buffer) => {
      size += piece.length;
      if (size <= maxBodyBytes) pieces.push(piece);
    });
    request.on("end", () => {
      try {
        if (size > maxBodyBytes) throw new RefusedError(refuse(413, "invalid_request_error", "Payload Too Large"));
        const body = Buffer.concat(pieces).toString();
        if (api === "embeddings") chat.embed(parseEmbeddingRequest(body), response);
        else chat.respond(parseRequest(api, body, beta), response);
      } catch (error) {
        // The simulator may run inside the proxy, so any error from a hostile body must be caught here.
        sendRefusal(response, error instanceof RefusedError ? error.refusal : serverError, api);
      }
    });
  }

  const server = createServer({ keepAliveTimeout: keepAliveTimeoutMs }, route);
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(options.port ?? 0, options.host ?? "127.0.0.1", resolve);
  });
  const { address, family, port } = server.address() as AddressInfo;

  return {
    url: `http://${family === "IPv6" ? `[${address}]` : address}:${port}`,
    stats: () => ({ ...counts }),
    close: () =>
      new Promise((resolve) => {
        ticker.close();
        server.close(() => {
          resolve();
        });
        server.closeAllConnections();
      }),
  };
}

const serverError = refuse(500, "server_error", "Internal Server Error");
const modelList = {
  object: "list",
  data: [...models, ...scenarios.keys()].map((id) => ({ id, object: "model", owned_by: "deepseek" })),
};
const balance = {
  is_available: true,
  balance_infos: [{ currency: "CNY", total_balance: "110.00", granted_balance: "10.00", topped_up_balance: "100.00" }],
};

type SimApi = TextApi | "embeddings";

function apiOf(path: string): SimApi | undefined {
  if (path.endsWith("/chat/completions")) return "chat";
  if (path.endsWith("/completions")) return "completions";
  if (path.endsWith("/anthropic/v1/messages")) return "messages";
  if (path.endsWith("/responses")) return "responses";
  return path.endsWith("/embeddings") ? "embeddings" : undefined;
}

/** Checks the key, in the header of OpenAI's clients or of Anthropic's. */
function checkKey({ headers }: IncomingMessage, apiKey: string | undefined): Refusal | undefined {
  const bearer = /^Bearer (\S+)$/i.exec(headers.authorization ?? "")?.[1];
  const key = bearer ?? headers["x-api-key"]?.toString();
  if (key === undefined) return missingKey;
  if (apiKey === undefined || key === apiKey) return undefined;
  const message = `Authentication Fails, Your api key: ****${key.slice(-4)} is invalid`;
  return refuse(401, "authentication_error", message);
}

function sendRefusal(response: ServerResponse, refusal: Refusal, api?: SimApi): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  response.writeHead(refusal.status, { ...refusal.headers, "content-type": refusal.contentType });
  response.end(api === "messages" ? inAnthropicsShape(refusal) : refusal.body);
}

function inAnthropicsShape({ contentType, body }: Refusal): string {
  if (!contentType.startsWith("application/json")) return body;
  const { error } = JSON.parse(body) as { error: { message: string; type?: string } };
  return messageError(error.message, error.type ?? "api_error");
}

function sendJson(response: ServerResponse, body: object): void {
  response.writeHead(200, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}
