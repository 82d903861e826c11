import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { onTestFinished } from "vitest";

/** A provider that answers every chat at once, and remembers what it was asked. */
export interface CountingUpstream {
  readonly url: string;
  /** The models that it was asked for, in order. */
  readonly asked: string[];
  /** What GET /models lists; none by default. */
  models: readonly string[];
  /** The status of its answers to chats; other than 200 it fails. */
  status: number;
}

/** Starts one; `close` ends it, by default when the running test has finished. */
export async function startCountingUpstream(
  close: (end: () => Promise<void>) => void = onTestFinished,
): Promise<CountingUpstream> {
  const server = createServer((request, response) => {
    const pieces: Buffer[] = [];
    request.on("data", (piece: Buffer) => pieces.push(piece));
    request.on("end", () => {
      const json = { "content-type": "application/json" };
      if (request.method === "GET") {
        response.writeHead(200, json).end(JSON.stringify({ data: upstream.models.map((id) => ({ id })) }));
        return;
      }
      const { model } = JSON.parse(Buffer.concat(pieces).toString()) as { model: string };
      upstream.asked.push(model);
      if (upstream.status !== 200) {
        response.writeHead(upstream.status, json).end('{"error":{"message":"no"}}');
        return;
      }
      const usage = { prompt_tokens: 10, completion_tokens: 5, total_tokens: 15 };
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write('data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n');
      response.write(
        `data: ${JSON.stringify({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }], usage })}\n\n`,
      );
      response.end("data: [DONE]\n\n");
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  close(
    () =>
      new Promise((resolve) => {
        server.close(() => {
          resolve();
        });
        server.closeAllConnections();
      }),
  );
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const upstream: CountingUpstream = { url, asked: [], models: [], status: 200 };
  return upstream;
}
