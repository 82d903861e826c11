import { describe, expect, it } from "vitest";
import { findUnexplained, type CallEvent, type CounterCall } from "./linearizable.ts";

const reserve = (amount: number, granted: boolean): CounterCall => ({ kind: "reserve", amount, granted });
const settle = (returned: number): CounterCall => ({ kind: "settle", returned });
const read = (counted: number): CounterCall => ({ kind: "read", counted });

/** Calls one after another. */
const inTurn = (...calls: readonly CounterCall[]): CallEvent[] =>
  calls.flatMap((end, call) => [{ call }, { call, end }]);

/** Calls that all run before the first one ends. */
const atOnce = (...calls: readonly CounterCall[]): CallEvent[] => [
  ...calls.map((_, call) => ({ call })),
  ...calls.map((end, call) => ({ call, end })),
];

describe("findUnexplained", () => {
  it("finds nothing where one counter would have answered so", () => {
    for (const events of [
      [],
      inTurn(reserve(2, true), reserve(2, false), read(2), settle(1), reserve(2, true), read(3)),
      // Only in another order than that of their ends.
      atOnce(reserve(2, false), read(3), reserve(2, true), read(2), reserve(1, true), read(0)),
      atOnce(reserve(3, true), settle(3), reserve(3, true)),
    ])
      expect(findUnexplained(events, 3)).toBeUndefined();
  });

  it("finds what was sold twice, refused in spite of room, lost, or counted twice", () => {
    for (const events of [
      inTurn(reserve(2, true), reserve(2, true)),
      atOnce(reserve(2, true), reserve(2, true)),
      inTurn(reserve(2, true), reserve(1, false)),
      atOnce(reserve(1, true), reserve(2, false)),
      inTurn(reserve(2, true), read(0)),
      inTurn(reserve(1, true), read(2)),
      inTurn(reserve(3, true), settle(1), reserve(2, true)),
      // Both reads run at once, but after the reservation.
      [...inTurn(reserve(1, true)), { call: 1 }, { call: 2 }, { call: 1, end: read(1) }, { call: 2, end: read(0) }],
    ])
      expect(findUnexplained(events, 3)).toBeDefined();
  });
});
