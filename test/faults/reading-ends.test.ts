import { afterAll, afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Deadlines } from "../../src/providers/deadlines.ts";
import { messageDelta, messageStart, messageStop, messageText } from "../support/message-events.ts";
import { testProvider } from "../support/provider.ts";
import { closeRawProviders, readFrom, startRawProvider, type RawResponse } from "../support/raw-provider.ts";
import { event } from "../support/read-response.ts";

const usage = { prompt_tokens: 5, completion_tokens: 1 };
const delta = (content: string, finish_reason: string | null = null, rest: object = {}): string =>
  event({ choices: [{ index: 0, delta: { content }, finish_reason }], ...rest });
const chat = [delta("a"), delta("", "stop", { usage })];
const message = [messageStart, ...messageText.filter((each) => !each.includes("ping")), messageDelta()];

/** What a provider does behind the last thing that matters. */
const ends: Readonly<Record<string, (answer: RawResponse) => void>> = {
  "nothing more": () => undefined,
  "comments for ever": (answer) => {
    const beat = setInterval(() => {
      answer.send(": keep-alive\n\n");
    }, 20);
    answer.socket.on("close", () => {
      clearInterval(beat);
    });
  },
  "empty events for ever": (answer) => {
    const beat = setInterval(() => {
      answer.send("data:\n\n");
    }, 20);
    answer.socket.on("close", () => {
      clearInterval(beat);
    });
  },
  "the last chunk alone": (answer) => {
    answer.end();
  },
  "a close without the last chunk": ({ socket }) => {
    socket.end();
  },
  "half a chunk": ({ socket }) => {
    socket.end("ffff\r\ndata: {");
  },
  "what is no HTTP": ({ socket }) => {
    socket.write("nonsense\r\n\r\n");
  },
  "[DONE], and stays": (answer) => {
    answer.send("data: [DONE]\n\n");
  },
  "[DONE] without its blank line, and stays": (answer) => {
    answer.send("data: [DONE]");
  },
  "half an event": (answer) => {
    answer.send("data: {");
  },
};

const farewells: Readonly<Record<"chat" | "messages", typeof ends>> = {
  chat: {},
  messages: {
    "message_stop, and stays": (answer) => {
      answer.send(messageStop);
    },
    "message_stop without its blank line, and stays": (answer) => {
      answer.send(messageStop.trimEnd());
    },
  },
};

const apis = [
  ...[true, false].map((collects) => ({ api: "chat" as const, collects, events: chat })),
  ...[true, false].map((collects) => ({ api: "messages" as const, collects, events: message })),
];

afterAll(closeRawProviders);

describe.concurrent.each(apis)("A3: an answer of $api, collected: $collects,", ({ api, collects, events }) => {
  it.each(Object.entries({ ...ends, ...farewells[api] }))("is complete with %s behind its end", async (_, end) => {
    const provider = await startRawProvider((answer) => {
      answer.head();
      answer.send(events.join(""));
      end(answer);
    });
    const { seen, ended, attempt } = await readFrom(provider, { api, collects });
    expect(await ended).toBeNull();
    expect(seen.join("")).toBe(events.join(""));
    expect(attempt.reader.usage?.output).toBeGreaterThan(0);
    // Nobody holds the connection any more, and the provider is well.
    await vi.waitFor(() => {
      expect(attempt.provider.health.stats).toMatchObject({ inFlight: 0, failed: 0 });
    });
  });

  it("is complete where it is reset behind its end", async () => {
    let reset = (): unknown => undefined;
    const provider = await startRawProvider((answer) => {
      answer.head();
      answer.send(events.join(""));
      reset = () => answer.socket.resetAndDestroy();
    });
    const { ended, seen } = await readFrom(provider, { api, collects });
    await vi.waitFor(() => {
      expect(seen).toHaveLength(events.length);
    });
    reset();
    expect(await ended).toBeNull();
  });

  it.each(Object.entries(ends).filter(([name]) => name.includes("last chunk") || name.includes("HTTP")))(
    "is broken with %s before its end",
    async (_, end) => {
      const provider = await startRawProvider((answer) => {
        answer.head();
        answer.send(events.slice(0, -1).join(""));
        end(answer);
      });
      const { ended } = await readFrom(provider, { api, collects });
      expect((await ended)?.facts.kind).toMatch(/^(truncated|network)$/);
    },
  );
});

describe.concurrent("A3: usage that comes behind the last finish_reason", () => {
  it.each([true, false])("counts within the grace, collected: %s", async (collects) => {
    const provider = await startRawProvider((answer) => {
      answer.head();
      answer.send(delta("a") + delta("", "stop"));
      setTimeout(() => {
        answer.send(event({ choices: [], usage }));
      }, 300);
    });
    const { ended, attempt } = await readFrom(provider, { collects });
    expect(await ended).toBeNull();
    expect(attempt.reader.usage).toMatchObject({ input: 5, output: 1 });
  });

  it("is waited for no longer than that", async () => {
    const provider = await startRawProvider((answer) => {
      answer.head();
      answer.send(delta("a") + delta("", "stop"));
    });
    const { ended, attempt } = await readFrom(provider);
    expect(await ended).toBeNull();
    expect(attempt.reader.usage).toBeNull();
  });
});

describe.concurrent("A3: an answer with a finish_reason and usage in every event", () => {
  it.each([true, false])("goes on while there is more text, collected: %s", async (collects) => {
    const events = Array.from({ length: 12 }, (_, at) => delta(`${at} `, "stop", { usage }));
    const provider = await startRawProvider((answer) => {
      answer.head();
      let at = 0;
      const timer = setInterval(() => {
        const next = events[at++];
        if (next === undefined) clearInterval(timer);
        else answer.send(next);
      }, 50);
    });
    const { seen, ended } = await readFrom(provider, { collects });
    expect(await ended).toBeNull();
    expect(seen).toEqual(events);
  });
});

describe("A3: the grace", () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  function start() {
    const clock = { now: () => Date.now(), monotonic: () => Date.now() };
    const told: string[] = [];
    const deadlines = new Deadlines(testProvider("x").timeouts, clock, {
      onDeadline: (stage) => told.push(stage),
      onGraceOver: () => told.push("grace"),
    });
    deadlines.start(Date.now());
    deadlines.toStage("streaming");
    deadlines.touch();
    return { deadlines, told };
  }

  it("is over at its time, once, and the deadlines go on", () => {
    const { deadlines, told } = start();
    deadlines.setGrace(2000);
    vi.advanceTimersByTime(1999);
    expect(told).toEqual([]);
    vi.advanceTimersByTime(1);
    expect(told).toEqual(["grace"]);
    vi.advanceTimersByTime(2999);
    expect(told).toEqual(["grace"]);
    vi.advanceTimersByTime(1);
    expect(told[1]).toBe("streaming");
    deadlines.stop();
  });

  it("begins anew where it is set again, and can be called off", () => {
    const { deadlines, told } = start();
    deadlines.setGrace(2000);
    vi.advanceTimersByTime(1900);
    deadlines.setGrace(250);
    vi.advanceTimersByTime(249);
    expect(told).toEqual([]);
    vi.advanceTimersByTime(1);
    expect(told).toEqual(["grace"]);
    deadlines.setGrace(250);
    deadlines.setGrace(null);
    vi.advanceTimersByTime(1000);
    expect(told).toEqual(["grace"]);
    deadlines.stop();
  });

  it("stands still while reading is paused", () => {
    const { deadlines, told } = start();
    deadlines.setGrace(2000);
    vi.advanceTimersByTime(1500);
    deadlines.hold();
    vi.advanceTimersByTime(20_000);
    expect(told).toEqual([]);
    deadlines.release();
    vi.advanceTimersByTime(499);
    expect(told).toEqual([]);
    vi.advanceTimersByTime(1);
    expect(told).toEqual(["grace"]);
    deadlines.stop();
  });

  it("leaves no timer behind", () => {
    const { deadlines, told } = start();
    deadlines.hold();
    deadlines.setGrace(250);
    deadlines.stop();
    deadlines.release();
    expect(vi.getTimerCount()).toBe(0);
    expect(told).toEqual([]);
  });
});
