import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { systemClock } from "../../src/lib/clock.ts";
import type { DisconnectSignal } from "../../src/lib/disconnect-signal.ts";
import { createFailover, type UpstreamResponse, type Caller, type RetryRule } from "../../src/providers/failover.ts";
import { UpstreamError } from "../../src/providers/upstream-error.ts";
import type { Provider } from "../../src/providers/provider.ts";
import { createCapturedLog } from "./captured-log.ts";
import { testProvider } from "./provider.ts";

/** Answers one request. */
type Handler = (response: ServerResponse, request: IncomingMessage) => void;

const closers: (() => Promise<unknown>)[] = [];
/** Closes what `serve` and `open` have opened. */
export async function closeAll(): Promise<void> {
  for (const close of closers.splice(0)) await close();
}

/** A provider on a real port; `asked` holds the key of each request. */
export async function serve(handler: Handler): Promise<{ readonly url: string; readonly asked: string[] }> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(String(request.headers.authorization));
    request.resume().on("end", () => {
      handler(response, request);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  closers.push(
    () =>
      new Promise((resolve) => {
        server.close(resolve);
        server.closeAllConnections();
      }),
  );
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
}

/** A provider whose connections `closeAll` cuts. */
export function open(name: string, changes: Parameters<typeof testProvider>[1]): Provider {
  const provider = testProvider(name, changes);
  closers.push(() => provider.dispatcher.destroy());
  return provider;
}

/** Answers with an error. */
export function refuse(status: number, headers: Record<string, string> = {}, message = "no"): Handler {
  return (response) => {
    response.writeHead(status, headers).end(JSON.stringify({ error: { message, type: "t", code: "c" } }));
  };
}

/** Answers with one event and [DONE]. */
export const answer: Handler = (response) => {
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.end('data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n');
};

/** A dispatch with short pauses, and a client to leave. */
export function setUp(changes: Partial<RetryRule> = {}) {
  const log = createCapturedLog();
  const alerts: string[] = [];
  const adapted: string[] = [];
  const retry = { attempts: 3, baseMs: 1, maxMs: 4, maxRetryAfterMs: 1000, ...changes };
  const dispatch = createFailover({
    clock: systemClock,
    random: () => 1,
    alerts: { raise: (provider, kind) => alerts.push(`${provider.name} ${provider.keyIndex} ${kind}`) },
    caps: { adapt: (name, { firstEventMs }) => adapted.push(`${name} ${firstEventMs === null ? "too much" : "good"}`) },
    log,
  });
  const followed: (number | null)[] = [];
  const signal: { gone: boolean; onGone: DisconnectSignal["onGone"]; useTimes: Caller["useTimes"] } = {
    gone: false,
    onGone: undefined,
    useTimes: (times) => followed.push(times?.heartbeat ?? null),
  };
  const ask = (
    candidates: readonly Provider[],
    user = "alice",
    model = "m",
    takePlace: Parameters<typeof dispatch>[3]["takePlace"] = null,
  ): Promise<UpstreamResponse> => {
    const route = { model, upstreamModel: model, candidates };
    return dispatch(
      route,
      {
        api: "chat",
        collects: false,
        choices: 1,
        canDropStreamOptions: () => false,
        bodyFor: (model) => Buffer.from(model),
      },
      signal,
      { traceId: "trace", user, retry, trace: null, takePlace },
    );
  };
  return { ask, signal, followed, log, alerts, adapted };
}

/** The fault that an answer ended in. */
export async function upstreamErrorOf(asking: Promise<UpstreamResponse>): Promise<UpstreamError> {
  const error: unknown = await asking.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof UpstreamError) return error;
  throw new Error(`expected an UpstreamError, got ${String(error)}`);
}
