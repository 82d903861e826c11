import { describe, expect, test } from "vitest";
import { createLogger } from "../../src/events/logger.ts";
import { createLogSink } from "../../src/events/log-sink.ts";
import { chatFinished, loginFailed, testEnvelopes } from "../support/events.ts";

function capture(level: "debug" | "info" | "warn" = "info") {
  const lines: string[] = [];
  const log = createLogger({ level, destination: { write: (line) => lines.push(line) } });
  return { log, text: () => lines.join(""), parsed: () => lines.map((line): unknown => JSON.parse(line)) };
}

const secrets = {
  authorization: "Bearer planted-1",
  "Proxy-Authorization": "planted-2",
  cookie: "planted-3",
  password: "planted-4",
  password_hash: "planted-5",
  token: "planted-6",
  access_token: "planted-7",
  refreshToken: "planted-8",
  api_key: "planted-9",
  apiKey: "planted-10",
  "X-Api-Key": "planted-11",
  JWT_SECRETS: "planted-12",
  client_secret: ["planted-13"],
};

describe("logger", () => {
  test("writes facts, message, level and time as a line of JSON", () => {
    const { log, parsed } = capture();
    log.info({ port: 8080 }, "listening");
    expect(parsed()).toEqual([
      { level: "info", time: expect.stringMatching(/^\d{4}-.*Z$/), port: 8080, msg: "listening" },
    ]);
  });

  test("writes facts that are JSON already in the same form", () => {
    const { log, parsed } = capture();
    log.info({ port: 8080, name: 'a "b"' }, "said twice");
    log.infoJson(JSON.stringify({ port: 8080, name: 'a "b"' }), "said twice");
    const [first, second] = parsed() as Record<string, unknown>[];
    expect({ ...second, time: "" }).toEqual({ ...first, time: "" });
    expect(Object.keys(second ?? {})).toEqual(Object.keys(first ?? {}));
  });

  test("leaves out what is below its level", () => {
    const { log, text } = capture("warn");
    log.debug({}, "d");
    log.info({}, "i");
    log.infoJson('{"a":1}', "j");
    log.warn({}, "w");
    log.error({}, "e");
    expect(text().match(/"msg":"\w"/g)).toEqual(['"msg":"w"', '"msg":"e"']);
  });

  test("hides secrets at the top, deep down, in lists and behind `debug`", () => {
    const { log, text } = capture("debug");
    log.error(secrets, "top");
    log.debug({ request: { headers: secrets, list: [{ secrets }] } }, "deep");
    expect(text()).not.toContain("planted");
    expect(text()).toContain('"password":"[redacted]"');
  });

  test("leaves the caller's object as it is, and token counts readable", () => {
    const { log, parsed } = capture();
    const facts = { password: "x", input_tokens: 5, outputTokens: 6 };
    log.info(facts, "m");
    expect(facts.password).toBe("x");
    expect(parsed()).toMatchObject([{ password: "[redacted]", input_tokens: 5, outputTokens: 6 }]);
  });

  test("of an error it writes type, code, message and causes, but no body and no stack", () => {
    const { log, text, parsed } = capture();
    const cause = Object.assign(new TypeError("refused"), { code: "ECONNREFUSED", body: "planted" });
    log.error({ err: Object.assign(new Error("failed", { cause }), { response: { body: "planted" } }) }, "m");
    expect(parsed()).toMatchObject([
      { err: { type: "Error", message: "failed", cause: { type: "TypeError", code: "ECONNREFUSED" } } },
    ]);
    expect(text()).not.toMatch(/planted|stack|\.ts:/);
  });

  test("shows stacks at level debug", () => {
    const { log, text } = capture("debug");
    log.error({ err: new Error("failed") }, "m");
    expect(text()).toContain("logger.test.ts");
  });

  test("hides keys and tokens that stand in the message of an error", () => {
    const { log, text } = capture("debug");
    const messages = [
      "Bearer planted-token is not valid",
      "key sk-planted0123456789 was refused",
      "dsp_planted0123456789",
      "jwt eyJplanted.eyJplanted.planted",
      "connect to https://user:planted@host/ failed",
    ];
    for (const message of messages) log.error({ err: new Error(message) }, "m");
    expect(text()).not.toContain("planted");
    expect(text()).toContain("https://[redacted]@host/");
  });

  test("survives facts that go round in circles", () => {
    const { log, text } = capture();
    const circle: Record<string, unknown> = { password: "planted" };
    circle.self = circle;
    log.info(circle, "m");
    expect(text()).toContain("too deep");
    expect(text()).not.toContain("planted");
  });
});

describe("log sink", () => {
  test("logs one line for each chat and each login, and nothing else", () => {
    const { log, parsed } = capture();
    const sink = createLogSink(log, testEnvelopes());
    const base = { at: 0, traceId: "t", ip: "i", user: "alice" };
    sink(chatFinished());
    sink(loginFailed());
    sink({ ...base, type: "login.succeeded" });
    sink({ ...base, type: "quota.exceeded", metric: "requests", per: "day" });
    sink({ ...base, type: "rate_limit.rejected", rule: "global" });
    sink({ ...base, type: "request.finished", route: "other", code: "not_found", status: 404 });
    expect(parsed()).toMatchObject([
      { msg: "chat finished", event: "chat.finished", user: "alice", trace_id: "trace-1", duration_ms: 250 },
      { msg: "login failed", result: "failure", reason: "wrong password" },
      { msg: "login succeeded", user: "alice" },
    ]);
  });

  test("fields that are not on the list stay out, and long texts are cut", () => {
    const { log, text, parsed } = capture();
    createLogSink(log, testEnvelopes())({ ...chatFinished({ model: "m".repeat(10_000) }), prompt: "planted" } as never);
    expect(text()).not.toContain("planted");
    expect(parsed()).toMatchObject([{ model: "m".repeat(128) }]);
  });
});
