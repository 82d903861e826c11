import { describe, expect, test } from "vitest";
import type { ProxyEvent } from "../../src/events/catalogue.ts";
import { cloudEventAttributes } from "../../src/events/cloud-event.ts";
import { eventFacts } from "../../src/events/envelope.ts";
import { payloads } from "../../src/events/payloads.ts";
import { chatFinished, loginFailed, testEnvelopes } from "../support/events.ts";

const chat = chatFinished({ keyId: "key-1", group: "lab", w3cTraceId: "a".repeat(32) });
const reloaded: ProxyEvent = {
  type: "config.reloaded",
  at: 0,
  traceId: "",
  ip: "",
  by: "file",
  changes: [{ path: "logs.level", before: "info", after: "warn" }],
  count: 1,
  restartNeeded: [],
};
const loggedIn: ProxyEvent = { type: "login.succeeded", at: 0, traceId: "t", ip: "192.0.2.1", user: "alice" };
const events: ProxyEvent[] = [chat, reloaded, loggedIn, loginFailed({ user: "" })];

describe("the envelope", () => {
  test("names who, when, where and why once, and leaves the rest to the payload", () => {
    const { data, ...head } = testEnvelopes().of(chat);
    expect(head).toEqual({
      id: "event-1",
      time: "2026-11-22T10:00:00.000Z",
      type: "chat.finished",
      version: 1,
      node: "node-1",
      request_id: "trace-1",
      trace_id: "a".repeat(32),
      address: "192.0.2.1",
      user: "alice",
      group: "lab",
      key_id: "key-1",
    });
    expect(payloads["chat.finished"].data.parse(data)).toEqual(data);
  });

  test("has null for what an event doesn't have", () => {
    const nothing = { request_id: null, trace_id: null, user: null, group: null, key_id: null, address: null };
    expect(testEnvelopes().of(reloaded)).toMatchObject(nothing);
    expect(testEnvelopes().of(loginFailed({ user: "" }))).toMatchObject({ user: null, group: null });
  });

  test("is the same for every consumer of an event, as an object and as text", () => {
    for (const event of events) {
      const envelopes = testEnvelopes();
      const envelope = envelopes.of(event);
      expect(envelopes.of(event)).toBe(envelope);
      expect(envelopes.idOf(event)).toBe(envelope.id);
      expect(JSON.parse(envelopes.textOf(event))).toEqual(envelope);
      expect(JSON.parse(testEnvelopes().textOf(event))).toEqual(envelope);
      expect(JSON.parse(envelopes.factsTextOf(event))).toEqual(eventFacts(event));
    }
  });

  test("cuts long texts from outside", () => {
    const long = chatFinished({ traceId: "t".repeat(1000), model: "m".repeat(1000) });
    expect(testEnvelopes().of(long)).toMatchObject({ request_id: "t".repeat(128), data: { model: "m".repeat(128) } });
  });
});

describe("the attributes of CloudEvents", () => {
  test("have the standard's names, and the proxy's as extensions", () => {
    expect(cloudEventAttributes({ ...testEnvelopes().of(chat), node: "höst 1:8080" })).toEqual({
      specversion: "1.0",
      id: "event-1",
      source: "/deepseek-proxy/h%C3%B6st%201:8080",
      type: "deepseek-proxy.chat.finished",
      subject: "alice",
      time: "2026-11-22T10:00:00.000Z",
      datacontenttype: "application/json",
      dataschema: "docs/events.schema.json#/$defs/chat.finished",
      dataversion: "1",
      node: "höst 1:8080",
      requestid: "trace-1",
      traceid: "a".repeat(32),
      address: "192.0.2.1",
      user: "alice",
      group: "lab",
      keyid: "key-1",
    });
  });

  test("leave out what is empty, for the standard forbids empty attributes", () => {
    const attributes = cloudEventAttributes(testEnvelopes().of(reloaded));
    expect(Object.keys(attributes).sort()).toEqual(
      ["specversion", "id", "source", "type", "time", "datacontenttype", "dataschema", "dataversion", "node"].sort(),
    );
  });
});
