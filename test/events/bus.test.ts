import { describe, expect, test } from "vitest";
import { createBus } from "../../src/events/bus.ts";
import type { ProxyEvent } from "../../src/events/catalogue.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { chatFinished } from "../support/events.ts";
import { createManualClock } from "../support/manual-clock.ts";

describe("event bus", () => {
  test("hands each event to every sink, in order and before emit returns", () => {
    const bus = createBus({ log: createCapturedLog(), clock: createManualClock() });
    const seen: [string, ProxyEvent][] = [];
    bus.subscribe("one", (event) => seen.push(["one", event]));
    bus.subscribe("two", (event) => seen.push(["two", event]));
    const event = chatFinished();
    bus.emit(event);
    expect(seen).toEqual([
      ["one", event],
      ["two", event],
    ]);
  });

  test("what a sink emits comes to all sinks after the event that it was handed", () => {
    const bus = createBus({ log: createCapturedLog(), clock: createManualClock() });
    const seen: string[] = [];
    bus.subscribe("echo", (event) => {
      if (event.traceId === "first") bus.emit(chatFinished({ traceId: "echo" }));
    });
    bus.subscribe("witness", (event) => seen.push(event.traceId));
    bus.emit(chatFinished({ traceId: "first" }));
    bus.emit(chatFinished({ traceId: "second" }));
    expect(seen).toEqual(["first", "echo", "second"]);
  });

  test("a sink that throws reaches neither the emitter nor the other sinks, and is counted", () => {
    const bus = createBus({ log: createCapturedLog(), clock: createManualClock() });
    const seen: ProxyEvent[] = [];
    bus.subscribe("broken", () => {
      throw new Error("disk on fire");
    });
    bus.subscribe("whole", (event) => seen.push(event));
    bus.emit(chatFinished());
    bus.emit(chatFinished());
    expect(seen).toHaveLength(2);
    expect([...bus.sinkErrors()]).toEqual([
      ["broken", 2],
      ["whole", 0],
    ]);
  });

  test("a sink that goes on failing is logged at once and then every ten seconds", () => {
    const log = createCapturedLog();
    const clock = createManualClock();
    const bus = createBus({ log, clock });
    bus.subscribe("broken", () => {
      throw new Error("disk on fire");
    });
    for (let second = 0; second < 20; second++) {
      bus.emit(chatFinished());
      clock.advance(1000);
    }
    expect(log.lines.map(({ level, facts }) => [level, facts.sink, facts.errors])).toEqual([
      ["error", "broken", 1],
      ["error", "broken", 11],
    ]);
  });
});
