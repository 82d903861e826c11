import { createServer, type AddressInfo, type Socket } from "node:net";
import { afterEach, describe, expect, it, onTestFinished } from "vitest";
import { systemClock } from "../../src/lib/clock.ts";
import { Attempt } from "../../src/providers/attempt.ts";
import type { UpstreamError } from "../../src/providers/upstream-error.ts";
import { closeAll, open } from "../support/failover.ts";
import { passFor } from "../support/provider.ts";

const event = (content: string, finish: string | null = null): string =>
  `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content }, finish_reason: finish }] })}\n\n`;

/** Asks a provider that sends a body without a length, then whatever `send` does. */
async function ask(send: (socket: Socket) => void): Promise<Attempt> {
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => {
      socket.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
      send(socket);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.close();
  });
  const provider = open("closing", { baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
  const question = {
    api: "chat",
    collects: false,
    choices: 1,
    canDropStreamOptions: () => false,
    bodyFor: () => Buffer.from("{}"),
  } as const;
  const attempt = new Attempt(provider, passFor("m"), question, systemClock);
  await attempt.open("m", systemClock.monotonic());
  return attempt;
}

type Pace = "as fast as it can" | "a pause at each event" | "a longer pause at each event" | "a pause at each read";

function read(attempt: Attempt, pace: Pace): Promise<{ fault: UpstreamError | null; bytes: number }> {
  return new Promise((resolve) => {
    let bytes = 0;
    const resume = (): void => {
      attempt.resume();
    };
    const rest = (): void => {
      attempt.pause();
      if (pace === "a longer pause at each event") setTimeout(resume, 2);
      else setImmediate(resume);
    };
    attempt.pipe({
      onEvent: (_event, start, end) => {
        bytes += end - start;
        if (pace.endsWith("at each event")) rest();
      },
      onBatch: () => {
        if (pace === "a pause at each read") rest();
      },
      onEnd: (fault) => {
        resolve({ fault, bytes });
      },
    });
  });
}

// What undici's parser asserts in a callback of the socket is no failed expectation here but an unhandled error of the
// whole run, which fails it as well.
describe("D1: a body that lasts until its connection closes", () => {
  afterEach(closeAll);

  const paces = [
    "as fast as it can",
    "a pause at each event",
    "a longer pause at each event",
    "a pause at each read",
  ] as const;
  const sizes = [[1024], [70_000, 1024], [1024, 300_000], [5_000_000], [65_400, 65_500, 65_600, 1]];

  it.each(paces)("is read to its end with %s, whatever the sizes", async (pace) => {
    for (const each of sizes) {
      const events = [...each.map((size) => event("x".repeat(size))), event("", "stop")];
      const attempt = await ask((socket) => {
        for (const text of events) socket.write(text);
        socket.end();
      });
      expect(await read(attempt, pace)).toEqual({ fault: null, bytes: Buffer.byteLength(events.join("")) });
    }
  });

  it.each(paces)("is a broken answer where it ends in a reset, with %s", async (pace) => {
    for (const size of [1024, 70_000, 1_000_000]) {
      const attempt = await ask((socket) => {
        socket.write(event("x".repeat(1024)));
        socket.write(event("x".repeat(size)), () => setTimeout(() => socket.resetAndDestroy(), 2));
      });
      // Node closes before it resets; behind much unread data the close is all that a reader gets to see.
      expect((await read(attempt, pace)).fault?.facts.kind).toMatch(/^(network|truncated)$/);
    }
  });

  it("may end while nobody reads it", async () => {
    const attempt = await ask((socket) => socket.end(event("a") + event("", "stop")));
    attempt.unpipe();
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect((await read(attempt, "as fast as it can")).fault).toBeNull();
  });

  it("may be given up while nobody reads it", async () => {
    const attempt = await ask((socket) => socket.end(event("a") + event("", "stop")));
    attempt.cancel();
    expect(attempt.provider.health.stats.inFlight).toBe(0);
  });

  it.each(["onEvent", "onBatch", "onEnd"] as const)("ends alone where its reader throws in %s", async (where) => {
    let sendMore = (): unknown => undefined;
    const attempt = await ask((socket) => {
      socket.write(event("a"));
      sendMore = () => socket.end(event("b") + event("", "stop"));
    });
    const ended = await new Promise<UpstreamError | null>((resolve) => {
      const fail = (callback: typeof where): void => {
        if (callback === where) throw new Error("a fault of our own");
      };
      attempt.pipe({
        onEvent: (bytes, start, end) => {
          if (bytes.toString("utf8", start, end).includes('"b"')) fail("onEvent");
        },
        onBatch: () => {
          if (attempt.generationMs() !== null && attempt.reader.outputTokens > 1) fail("onBatch");
        },
        onEnd: (fault) => {
          resolve(fault);
          fail("onEnd");
        },
      });
      sendMore();
    });
    expect(ended?.facts.kind).toBe(where === "onEnd" ? undefined : "invalid_response");
    expect(attempt.provider.health.stats.inFlight).toBe(0);
  });
});
