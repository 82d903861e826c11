import { describe, expect, test } from "vitest";
import { createEventFeed, type FeedReader } from "../../src/events/event-feed.ts";
import { chatFinished, testEnvelopes } from "../support/events.ts";
import { createManualClock } from "../support/manual-clock.ts";

/** A feed that somebody has followed just now, so that it keeps events. */
function makeFeed(size: number) {
  const clock = createManualClock();
  let places = 0;
  const newId = () => `place-${(places += 1)}`;
  const feed = createEventFeed({ size, envelopes: testEnvelopes(), clock, newId });
  feed.open(undefined, () => undefined).close();
  const emit = (count: number, model = "m"): void => {
    for (let at = 0; at < count; at++) feed.sink(chatFinished({ model }));
  };
  return { feed, emit, clock };
}

/** What a reader gets now: ids, and the lengths of gaps. */
function read(reader: FeedReader): readonly string[] {
  const all: string[] = [];
  for (let event = reader.next(); event !== undefined; event = reader.next())
    all.push(event === "gap" ? `gap of ${reader.missed ?? "unknown"}` : event.id.replace("event-", ""));
  return all;
}

describe("the feed of events", () => {
  test("starts a reader at the next event, and tells it of each", () => {
    const { feed, emit } = makeFeed(10);
    emit(2);
    let told = 0;
    const reader = feed.open(undefined, () => (told += 1));
    expect(read(reader)).toEqual([]);
    emit(3);
    expect(told).toBe(3);
    expect(read(reader)).toEqual(["3", "4", "5"]);
    reader.close();
    emit(1);
    expect(told).toBe(3);
    expect(feed.stats()).toEqual({ readers: 0, kept: 6, dropped: 0 });
  });

  test("goes on after an event that it still has, and says if it hasn't", () => {
    const { feed, emit } = makeFeed(4);
    emit(10);
    const open = (after: string) => read(feed.open(after, () => undefined));
    expect(open("event-8")).toEqual(["9", "10"]);
    expect(open("event-10")).toEqual([]);
    expect(open("event-2")).toEqual(["gap of unknown", "7", "8", "9", "10"]);
  });

  test("counts what a slow reader missed", () => {
    const { feed, emit } = makeFeed(4);
    const reader = feed.open(undefined, () => undefined);
    emit(11);
    expect(read(reader)).toEqual(["gap of 7", "8", "9", "10", "11"]);
    emit(1);
    expect(read(reader)).toEqual(["12"]);
    expect(feed.stats()).toMatchObject({ dropped: 7 });
  });

  test("keeps fewer events if they are large, and one whatever its size", () => {
    const { feed, emit } = makeFeed(4);
    for (let at = 0; at < 10; at++) {
      const after = { text: "x".repeat(at === 9 ? 100_000 : 3000) };
      feed.sink({
        type: "admin.changed",
        at: 0,
        traceId: "t",
        ip: "",
        action: "user.changed",
        by: "boss",
        user: "alice",
        subject: "",
        before: null,
        after,
        reason: "",
      });
      expect(feed.stats().kept).toBe(at === 9 ? 1 : Math.min(at + 1, 2));
    }
    emit(1);
    expect(feed.stats().kept).toBe(1);
  });

  test("of no size passes events on and keeps none for later", () => {
    const { feed, emit } = makeFeed(0);
    emit(3);
    expect(feed.stats().kept).toBe(0);
    const got: string[] = [];
    const reader = feed.open(undefined, () => got.push(...read(reader)));
    emit(2);
    expect(got).toEqual(["1", "2"]);
  });

  test("gives a reader the id of its place, by which another goes on there, also before any event", () => {
    const { feed, emit } = makeFeed(3);
    const first = feed.open(undefined, () => undefined);
    const place = first.openedAfter;
    emit(2);
    const second = feed.open(undefined, () => undefined);
    expect(second.openedAfter).toBe("event-2");
    expect(read(feed.open(place, () => undefined))).toEqual(["1", "2"]);
    expect(feed.open(place, () => undefined).openedAfter).toBe(place);
    emit(2);
    // What came right behind the place is forgotten by now.
    const late = feed.open(place, () => undefined);
    expect(late.openedAfter).toBeUndefined();
    expect(read(late)).toEqual(["gap of unknown", "2", "3", "4"]);
    expect(read(second)).toEqual(["3", "4"]);
  });

  test("keeps nothing before somebody follows it, nor ten minutes after the last one has left", () => {
    const feed = createEventFeed({
      size: 10,
      envelopes: testEnvelopes(),
      clock: createManualClock(),
      newId: () => "place",
    });
    feed.sink(chatFinished());
    expect(feed.stats().kept).toBe(0);

    const { feed: followed, emit, clock } = makeFeed(10);
    clock.advance(599_999);
    emit(2);
    expect(read(followed.open("event-1", () => undefined))).toEqual(["2"]);
    const last = makeFeed(10);
    last.emit(3);
    last.clock.advance(600_000);
    last.emit(1);
    expect(last.feed.stats().kept).toBe(0);
    expect(read(last.feed.open("event-3", () => undefined))).toEqual(["gap of unknown"]);
  });
});
