import { expect, it } from "vitest";
import { graceMs, mediaClassOf, shapeOf, standingOf, verdictOf } from "../../src/providers/stream/response-rules.ts";

it.each([
  ["unfinished", "done", "unfinished"],
  ["unfinished", "end", "truncated"],
  ["unfinished", "break", "broken"],
  ["finished", "done", "complete"],
  ["finished", "end", "complete"],
  ["finished", "break", "complete"],
  ["given_up", "done", "given_up"],
  ["given_up", "end", "given_up"],
  ["given_up", "break", "given_up"],
] as const)("an answer that is %s and has ended in a %s is %s", (standing, lastWord, verdict) => {
  expect(verdictOf(standing, lastWord)).toBe(verdict);
});

it.each([
  ["unfinished", true, null],
  ["unfinished", false, null],
  ["finished", true, 250],
  ["finished", false, 2000],
  ["given_up", true, 250],
  ["given_up", false, 2000],
] as const)("silence behind an answer that is %s, usage reported: %s, may last %s ms", (standing, reported, ms) => {
  expect(graceMs(standing, reported)).toBe(ms);
});

it.each([
  ["stop", "finished"],
  ["length", "finished"],
  ["tool_calls", "finished"],
  ["a reason that nobody knows", "finished"],
  ["insufficient_system_resource", "given_up"],
  ["network_error", "given_up"],
  ["error", "given_up"],
  ["abort", "given_up"],
  ["", "unfinished"],
  [null, "unfinished"],
  [undefined, "unfinished"],
  [false, "unfinished"],
  [true, "unfinished"],
  [0, "unfinished"],
  [1, "unfinished"],
  [["stop"], "unfinished"],
  [{ reason: "stop" }, "unfinished"],
])("A1: the finish_reason %j means that a choice is %s", (reason, standing) => {
  expect(standingOf(reason)).toBe(standing);
});

it.each([
  ["text/event-stream", "events"],
  ["Text/Event-Stream", "events"],
  ["TEXT/EVENT-STREAM;Charset=UTF-8", "events"],
  [" text/event-stream ; charset=utf-8; q=1", "events"],
  ["application/json", "json"],
  ["Application/JSON; charset=utf-8", "json"],
  ["application/problem+JSON", "json"],
  ["text/json", "json"],
  ["", "unsaid"],
  [";charset=utf-8", "unsaid"],
  ["text/plain; charset=utf-8", "vague"],
  ["Application/Octet-Stream", "vague"],
  ["text/html", null],
  ["text/event-streams", null],
  ["image/png", null],
])("A5: the media type %j is %s", (type, media) => {
  expect(mediaClassOf(type)).toBe(media);
});

const events = ["data: 1", "data:1", ": hello", "event: x", "id: 7", "retry: 1", "\n\ndata: x", "\uFEFFdata: x"];
const json = ["{}", ' \r\n\t{"a":1}', "\uFEFF{"];
const neither = ["[1]", "Service unavailable", "<html>", "datum", "dat", "ids", '"text"', "", " "];

it.each([
  ["events", "events", "json", "events"],
  ["unsaid", "events", "json", "events"],
  ["json", "events", "json", "json"],
  ["vague", "events", "json", "unreadable"],
] as const)("a body that is said to be %s is %s, %s or %s by how it begins", (media, ifEvents, ifJson, otherwise) => {
  for (const text of events) expect([text, shapeOf(media, Buffer.from(text), true)]).toEqual([text, ifEvents]);
  for (const text of json) expect([text, shapeOf(media, Buffer.from(text), true)]).toEqual([text, ifJson]);
  for (const text of neither) expect([text, shapeOf(media, Buffer.from(text), true)]).toEqual([text, otherwise]);
});

it("the beginning of a body is told by as many bytes as it takes, however they come", () => {
  for (const text of [...events, ...json, ...neither]) {
    const bytes = Buffer.from(text);
    const whole = shapeOf("vague", bytes, true);
    const early = Array.from(bytes, (_, at) => shapeOf("vague", bytes.subarray(0, at), false));
    const told = early.filter((shape) => shape !== null);
    expect(new Set(told).size).toBeLessThanOrEqual(1);
    for (const shape of told) expect([text, shape]).toEqual([text, whole]);
  }
});
