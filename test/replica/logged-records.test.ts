import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { identityOf, type LoggedRecord } from "../../src/replica/logged-records.ts";

const text = fc.oneof(fc.string(), fc.constantFrom('"', "\\", '","requestId":"', "\u2028", "a\nb"));
const requests = fc.record({ at: fc.nat(), id: text, user: text, requestId: text, model: text });

function recordOf(kind: "charge" | "settle", body: object): LoggedRecord {
  return { kind, seq: 1, at: 1, origin: 1, body: JSON.stringify(body) };
}

describe("the identity of a request's record", () => {
  it("is the same in whatever order its members stand, whatever they hold", () => {
    fc.assert(
      fc.property(requests, fc.constantFrom("charge" as const, "settle" as const), (request, kind) => {
        const { at, id, user, requestId, model } = request;
        const written = identityOf(recordOf(kind, { at, id, user, requestId, model }));
        expect(written).toBe(`${kind}:${user}:${requestId}:${at}`);
        // As the journal has it, which knows no ids.
        expect(identityOf(recordOf(kind, { model, at, user, requestId }))).toBe(written);
      }),
      { numRuns: 500 },
    );
  });

  it("is that of no other user's, time's or kind's record with the same request id", () => {
    const one = { at: 1, id: "h", user: "alice", requestId: "r", model: "m" };
    const others = [
      { ...one, user: "bob" },
      { ...one, at: 2 },
      { ...one, requestId: "s" },
    ];
    const all = [recordOf("charge", one), recordOf("settle", one), ...others.map((other) => recordOf("charge", other))];
    expect(new Set(all.map(identityOf)).size).toBe(all.length);
  });

  it("is unknown where a member is of another kind, and an error where there is no JSON", () => {
    expect(identityOf(recordOf("charge", { at: "1", id: "h", user: "alice", requestId: "r" }))).toBeUndefined();
    expect(() => identityOf({ ...recordOf("charge", {}), body: "{" })).toThrow(SyntaxError);
  });
});
