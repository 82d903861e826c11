import type { ChatFinished, LoginFailed } from "../../src/events/catalogue.ts";
import { createEnvelopes, type Envelopes } from "../../src/events/envelope.ts";

/** Envelopes of the node `node-1` with the ids `event-1`, `event-2` and so on. */
export function testEnvelopes(): Envelopes {
  let ids = 0;
  return createEnvelopes({ node: "node-1", newId: () => `event-${(ids += 1)}` });
}

/** A chat of alice that went well, at 2026-11-22T10:00:00Z. */
export function chatFinished(changes: Partial<ChatFinished> = {}): ChatFinished {
  return {
    type: "chat.finished",
    at: Date.UTC(2026, 10, 22, 10),
    traceId: "trace-1",
    ip: "192.0.2.1",
    user: "alice",
    keyId: "",
    client: "",
    group: "",
    api: "chat",
    model: "deepseek-flash",
    provider: "deepseek",
    stream: true,
    outcome: "completed",
    code: "ok",
    refusedBy: "",
    status: 200,
    requests: 1,
    inputTokens: 100,
    cachedTokens: 40,
    outputTokens: 11,
    reasoningTokens: 5,
    cost: 1_500,
    currency: "CNY",
    estimated: false,
    firstEventMs: 30,
    generationMs: 200,
    durationMs: 250.04,
    queueMs: 0,
    retries: 0,
    ...changes,
  };
}

/** A login of alice with a wrong password. */
export function loginFailed(changes: Partial<LoginFailed> = {}): LoginFailed {
  return {
    type: "login.failed",
    at: Date.UTC(2026, 10, 22, 10),
    traceId: "trace-2",
    ip: "192.0.2.1",
    user: "alice",
    known: true,
    result: "failure",
    reason: "wrong password",
    ...changes,
  };
}
