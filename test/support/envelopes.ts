import type { Envelope } from "../../src/events/envelope.ts";

/** Envelopes number `from` to `to`, with the ids `id-N`, of the users user-0 to user-6 in turn. */
export function envelopes(from: number, to: number, changes: Partial<Envelope> = {}): Envelope[] {
  return Array.from({ length: to - from + 1 }, (_, index) => ({
    id: `id-${from + index}`,
    time: "2026-11-22T10:00:00.000Z",
    type: "login.succeeded",
    version: 1,
    node: "node-1",
    request_id: `request-${from + index}`,
    trace_id: null,
    user: `user-${(from + index) % 7}`,
    group: null,
    key_id: null,
    address: "192.0.2.1",
    data: { n: from + index },
    ...changes,
  }));
}
