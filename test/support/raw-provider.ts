import { createServer, type AddressInfo, type Socket } from "node:net";
import type { Clock } from "../../src/lib/clock.ts";
import { systemClock } from "../../src/lib/clock.ts";
import type { EventRole } from "../../src/providers/stream/response-reader.ts";
import { Attempt } from "../../src/providers/attempt.ts";
import { UpstreamError } from "../../src/providers/upstream-error.ts";
import type { ApiName } from "../../src/providers/apis.ts";
import type { Provider } from "../../src/providers/provider.ts";
import { passFor, testProvider } from "./provider.ts";

/** A provider's side of one connection. */
export interface RawResponse {
  readonly socket: Socket;
  /** Sends status and headers of a body in chunks. */
  head(status?: number, headers?: Readonly<Record<string, string>>): void;
  /** Sends a chunk of the body. */
  send(bytes: string | Buffer): void;
  /** Sends the last chunk. */
  end(): void;
}

const closers: (() => unknown)[] = [];

/** Closes all that were started. */
export async function closeRawProviders(): Promise<void> {
  for (const close of closers.splice(0)) await close();
}

/** Starts a provider that answers by hand; `closeRawProviders` closes it. */
export async function startRawProvider(answer: (answer: RawResponse) => void): Promise<Provider> {
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => {
      answer(answerOn(socket));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const provider = testProvider("raw", { baseUrl: `http://127.0.0.1:${port}`, kind: "deepseek" });
  closers.push(async () => {
    await provider.dispatcher.destroy();
    server.close();
  });
  return provider;
}

function answerOn(socket: Socket): RawResponse {
  return {
    socket,
    head(status = 200, headers = { "Content-Type": "text/event-stream" }) {
      const lines = Object.entries({ ...headers, "Transfer-Encoding": "chunked" }).map((pair) => pair.join(": "));
      socket.write([`HTTP/1.1 ${status} Words`, ...lines, "", ""].join("\r\n"));
    },
    send(bytes) {
      const length = Buffer.byteLength(bytes).toString(16);
      socket.write(Buffer.concat([Buffer.from(`${length}\r\n`), Buffer.from(bytes as string), Buffer.from("\r\n")]));
    },
    end() {
      socket.write("0\r\n\r\n");
    },
  };
}

interface Asked {
  readonly api?: ApiName;
  readonly collects?: boolean;
  readonly clock?: Clock;
}

/** An answer that is read as fast as it comes. */
export interface ReadAttempt {
  readonly attempt: Attempt;
  /** The events so far. */
  readonly seen: readonly string[];
  readonly roles: readonly EventRole[];
  /** How it has ended. */
  readonly ended: Promise<UpstreamError | null>;
}

/** Asks a provider and reads on. Rejects with the UpstreamError where there is no first event. */
export async function readFrom(provider: Provider, asked: Asked = {}): Promise<ReadAttempt> {
  const { api = "chat", collects = false, clock = systemClock } = asked;
  const question = { api, collects, choices: 1, canDropStreamOptions: () => false, bodyFor: () => Buffer.from("{}") };
  const attempt = new Attempt(provider, passFor("m"), question, clock);
  await attempt.open("m", clock.monotonic());
  const seen: string[] = [];
  const roles: EventRole[] = [];
  const ended = new Promise<UpstreamError | null>((resolve) => {
    attempt.pipe({
      onEvent(event, start, end, _textBytes, role) {
        seen.push(event.toString("utf8", start, end));
        roles.push(role);
      },
      onBatch: () => undefined,
      onEnd: resolve,
    });
  });
  return { attempt, seen, roles, ended };
}

/** What a provider's answer comes to: its events, or the fault. */
export async function outcomeOf(play: (answer: RawResponse) => void, asked: { collects?: boolean } = {}) {
  const provider = await startRawProvider(play);
  try {
    const { ended, seen, attempt } = await readFrom(provider, asked);
    return { fault: await ended, seen: seen.join(""), attempt };
  } catch (error) {
    if (error instanceof UpstreamError) return { fault: error, seen: "", attempt: null };
    throw error;
  }
}

/** Answers with a body as a whole. */
export function sending(
  bytes: string | Buffer,
  headers: Readonly<Record<string, string>>,
  status = 200,
): (answer: RawResponse) => void {
  return (answer) => {
    answer.head(status, headers);
    answer.send(bytes);
    answer.end();
  };
}
