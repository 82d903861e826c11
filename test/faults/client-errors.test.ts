import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { errorBody } from "../../src/errors.ts";
import { ErrorResponse } from "../../src/providers/stream/error-response.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";
import { testProvider } from "../support/provider.ts";
import { openStream } from "../support/sse-client.ts";
import { bearer, startProxy, upstreamKey, type RunningProxy } from "../support/start-proxy.ts";

const key = "sk-own";

/** What a client sees of a provider's answer. */
function shown(status: number, body: unknown) {
  const provider = testProvider("any", { kind: "openai", apiKey: key });
  const answer = new ErrorResponse(provider, "m", status, { "content-type": "application/json" });
  answer.push(Buffer.from(typeof body === "string" ? body : JSON.stringify(body)));
  const error = answer.toUpstreamError(0).toAppError();
  const { code, param, message, details, type } = errorBody(error, "t").error;
  return { status: error.status, code, param, message, type, upstream: details?.upstream };
}

describe("H7: the provider's words for a client's error", () => {
  const own = "The provider refused the request as invalid.";
  const rows: readonly (readonly [string, number, unknown, object])[] = [
    [
      "OpenAI's shape",
      400,
      {
        error: {
          message: "prompt of 70k",
          type: "invalid_request_error",
          code: "context_length_exceeded",
          param: "messages",
        },
      },
      {
        status: 400,
        code: "context_length_exceeded",
        param: "messages",
        message: "prompt of 70k",
        upstream: { type: "invalid_request_error" },
      },
    ],
    [
      "no code",
      400,
      { error: { message: "no", code: null } },
      { code: "upstream_rejected", param: null, message: "no" },
    ],
    ["a number as code", 400, { error: { message: "no", code: 1261 } }, { code: "1261", message: "no" }],
    ["no message", 400, { error: { code: "x_invalid", message: "" } }, { code: "x_invalid", message: own }],
    ["a message of white space", 400, { error: { code: "x", message: " \n" } }, { code: "x", message: own }],
    ["bare text as error", 400, { error: "too long" }, { code: "upstream_rejected", message: "too long" }],
    [
      "a name as error",
      400,
      { statusCode: 400, error: "Bad Request", message: "n must be 1" },
      { message: "n must be 1" },
    ],
    [
      "a list as message",
      400,
      { error: "Bad Request", message: ["a is bad", "b too"] },
      { message: "a is bad; b too" },
    ],
    [
      "everything at the top",
      400,
      { code: "InvalidParameter", message: "no" },
      { code: "InvalidParameter", message: "no" },
    ],
    ["a detail", 400, { detail: "no such field" }, { message: "no such field" }],
    [
      "FastAPI's list",
      422,
      { detail: [{ loc: ["body", "messages", 0, "role"], msg: "Field required", type: "missing", input: "a prompt" }] },
      { status: 422, param: "messages.0.role", message: "messages.0.role: Field required" },
    ],
    [
      "FastAPI's list inside a message",
      422,
      { object: "error", message: { detail: [{ loc: ["body", "stream_options"], msg: "Extra inputs" }] } },
      { status: 422, param: "stream_options", message: "stream_options: Extra inputs" },
    ],
    [
      "an error inside a detail",
      400,
      { detail: { error: { message: "no", code: "bad_n" } } },
      { code: "bad_n", message: "no" },
    ],
    [
      "a list of errors",
      400,
      { success: false, errors: [{ code: 7003, message: "no" }] },
      { code: "7003", message: "no" },
    ],
    [
      "Google's list",
      400,
      [{ error: { code: 400, message: "no", status: "INVALID_ARGUMENT" } }],
      { code: "400", message: "no" },
    ],
    ["a problem of RFC 9457", 400, { type: "about:blank", title: "Bad", detail: "n is 0" }, { message: "n is 0" }],
    ["Chinese servers' msg", 400, { code: 1214, msg: "参数错误" }, { code: "1214", message: "参数错误" }],
    [
      "an event",
      400,
      'data: {"error":{"message":"no","code":"bad_n","param":"n"}}\n\ndata: [DONE]\n\n',
      { code: "bad_n", param: "n", message: "no" },
    ],
    [
      "an event with other fields and lines",
      400,
      'id:1\r\nevent:error\r\n:HTTP_STATUS/400\r\ndata:{"code":"InvalidParameter",\r\ndata:"message":"no"}\r\n\r\n',
      { code: "InvalidParameter", message: "no" },
    ],
    ["an event of text", 400, "data: too long\n\n", { message: "too long" }],
    ["text that only begins like one", 400, "data: n is 0\nsee there", { message: "data: n is 0\nsee there" }],
    ["an event inside another, once", 400, "data: data: no", { message: "data: no" }],
    ["plain text", 400, " too long\n", { message: "too long" }],
    ["long text", 400, "x".repeat(600), { message: "x".repeat(500) }],
    ["a JSON text", 400, '"too long"', { message: "too long" }],
    ["an unknown object", 400, { reason_phrase: "n is 0" }, { message: '{"reason_phrase":"n is 0"}' }],
    ["nothing", 400, "", { message: own }],
    ["white space", 400, " \r\n ", { message: own }],
    ["an empty object", 400, "{}", { message: own }],
    ["null", 400, "null", { message: own }],
    ["HTML", 400, "<html><body>nginx</body></html>", { message: own }],
    ["HTML behind white space", 400, "\r\n \t<!DOCTYPE html><p>nginx", { message: own }],
    ["HTML behind a byte order mark", 400, "\ufeff<HTML>nginx", { message: own }],
    ["HTML behind words", 400, "400 Bad Request <html><h1>nginx</h1>", { message: own }],
    ["HTML as a message", 400, { error: { message: "<html>nginx</html>" } }, { message: own }],
    ["bytes that are no text", 400, "\u001f\ufffd\ufffd", { message: own }],
    ["413", 413, { error: { message: "too large" } }, { status: 413, code: "upstream_rejected", message: "too large" }],
    ["422", 422, { error: { message: "n", code: "bad_n" } }, { status: 422, code: "bad_n" }],
    ["415", 415, { error: { message: "no pictures" } }, { status: 400, message: "no pictures" }],
    ["404 about a field", 404, { error: { message: "no file", param: "file" } }, { status: 404, param: "file" }],
    ["500 about the request", 500, { error: { message: "long", code: "context_length_exceeded" } }, { status: 400 }],
    [
      "refused content",
      400,
      { error: { message: "flagged", code: "content_filter" } },
      { status: 400, code: "content_filter", message: "flagged" },
    ],
    [
      "an unknown model",
      404,
      { error: { message: "no such model: m", code: "NoModel", param: null } },
      {
        status: 404,
        code: "model_not_found",
        param: "model",
        message: "no such model: m",
        upstream: { code: "NoModel" },
      },
    ],
    [
      "other fields",
      400,
      { error: { message: "no", failed_generation: "{", status_code: 400, deep: [{ a: { b: 1 } }] }, id: 1 },
      { upstream: { failed_generation: "{", status_code: 400, deep: [{ a: { b: 1 } }] } },
    ],
  ];
  it.each(rows)("reaches the client: %s", (_what, status, body, expected) => {
    const seen = shown(status, body);
    expect(seen).toMatchObject(expected);
    expect(seen.message).not.toBe("");
    expect(seen.type).toBe("invalid_request_error");
  });

  it("has no secret in any field", () => {
    const say = `key ${key}, other sk-planted0123456789, https://user:planted@host/`;
    const fields = { message: say, code: say, param: say, type: say, hint: say, [say]: say, deep: [{ x: say }] };
    const text = JSON.stringify(shown(400, { error: { ...fields, api_key: "planted", authorization: "planted" } }));
    expect(text).not.toMatch(/planted|sk-own/);
    expect(text).toContain("key [key], other [redacted]");
    expect(JSON.stringify(shown(400, say))).not.toMatch(/planted|sk-own/);
  });

  it("is bounded, however much a provider says", () => {
    const deep = JSON.parse(`${'{"a":['.repeat(50)}1${"]}".repeat(50)}`);
    const many = Object.fromEntries(Array.from({ length: 100 }, (_, index) => [`f${index}`, "x".repeat(1000)]));
    const error = { message: "m".repeat(50_000), code: "c".repeat(9999), param: "p".repeat(9999), deep, ...many };
    expect(JSON.stringify(shown(400, { error })).length).toBeLessThan(25_000);
  });
});

describe("a client's error, through the whole proxy", () => {
  let upstream: ScriptedUpstream;
  let proxy: RunningProxy;
  let token: string;

  beforeAll(async () => {
    upstream = await startScriptedUpstream();
    proxy = await startProxy({ upstreamUrl: upstream.url, kind: "deepseek", config: "[retry]\nattempts = 1\n" });
    token = await proxy.login();
  });

  afterAll(async () => {
    await proxy.dispose();
    await upstream.close();
  });

  const ask = (path: string, stream: boolean) =>
    openStream(`${proxy.url}${path}`, {
      headers: bearer(token),
      body: { model: "m", stream, max_tokens: 9, messages: [{ role: "user", content: "hi" }] },
    });
  const tool = { message: "tool call lacks city", type: "invalid_request_error", code: "tool_bad", status_code: 400 };

  it.each(["/v1/chat/completions", "/anthropic/v1/messages"])("H7: keeps its words on %s", async (path) => {
    const asking = ask(path, true);
    const fields = { message: `70k, says ${upstreamKey}`, code: "context_length_exceeded", param: "messages" };
    (await upstream.next()).respond(413, { error: { ...fields, limit: 64 } });
    const client = await asking;
    await client.ended;
    expect(client.status).toBe(413);
    expect(JSON.parse(client.text)).toMatchObject({
      error: {
        code: "context_length_exceeded",
        param: "messages",
        message: "70k, says [key]",
        details: { upstream: { limit: 64 } },
        type: path.startsWith("/anthropic") ? "request_too_large" : "invalid_request_error",
      },
    });
  });

  it.each([true, false])("P4: as the first event is asked once and gets its 4xx, with stream %s", async (stream) => {
    const asked = upstream.received;
    const asking = ask("/v1/chat/completions", stream);
    const call = await upstream.next();
    await call.send(`event: error\ndata: ${JSON.stringify({ error: tool })}\n\n`);
    const client = await asking;
    await client.ended;
    expect(client.status).toBe(400);
    const { status_code, type } = tool;
    expect(JSON.parse(client.text).error).toMatchObject({
      code: "tool_bad",
      message: "tool call lacks city",
      details: { upstream: { status_code, type } },
    });
    expect(upstream.received).toBe(asked + 1);
    expect(proxy.services.providerAdmin.list()[0]).toMatchObject({ failed: 0 });
  });

  it.each([
    { error: tool },
    { choices: [{ index: 0, delta: {}, finish_reason: null, error: tool }] },
    { object: "error", ...tool },
  ])("P4: in mid-stream is an error event with the provider's words: %j", async (event) => {
    const asking = ask("/v1/chat/completions", true);
    const call = await upstream.next();
    await call.delta("half");
    await call.event(event);
    const client = await asking;
    const events = await client.rest();
    expect(events.at(-1)?.json?.error).toMatchObject({ code: "tool_bad", message: "tool call lacks city" });
    expect(client.text).not.toContain("[DONE]");
    expect(proxy.services.providerAdmin.list()[0]).toMatchObject({ failed: 0 });
  });

  it("P11, O4: is logged with path, status and words; a wrong path is the provider's failure", async () => {
    const refuse = async (status: number, message: string) => {
      const asking = ask("/v1/chat/completions", true);
      (await upstream.next()).respond(status, { error: { message } });
      const client = await asking;
      await client.ended;
      const line = proxy.logLines.find((one) => one.includes(message));
      return { status: client.status, error: JSON.parse(client.text).error, line: JSON.parse(line ?? "null") };
    };
    expect(await refuse(404, "no route /chat")).toMatchObject({
      status: 502,
      error: { code: "upstream_error" },
      line: { level: "warn", status: 404, path: "/chat/completions", kind: "unsupported" },
    });
    expect(await refuse(404, "there is no model m")).toMatchObject({
      status: 404,
      error: { code: "model_not_found", message: "there is no model m" },
      line: { level: "warn", status: 404, path: "/chat/completions", model: "m" },
    });
    expect(await refuse(400, "n must be 1")).toMatchObject({
      status: 400,
      error: { message: "n must be 1" },
      line: { level: "info", status: 400, path: "/chat/completions" },
    });
    // sk-… is not this provider's key, and still nobody's to read.
    expect((await refuse(500, "no: sk-planted0123456789 x")).line).toBeNull();
    expect(proxy.logLines.join("")).not.toContain("sk-planted");
  });

  it("O4: is logged with at most 500 characters of what the provider quotes of a prompt", async () => {
    const asking = ask("/v1/chat/completions", true);
    (await upstream.next()).respond(400, { error: { message: `blocked: ${"secret plan ".repeat(200)}` } });
    await (
      await asking
    ).ended;
    const line = JSON.parse(proxy.logLines.findLast((one) => one.includes("blocked: ")) ?? "null") as object;
    expect(line).toMatchObject({ level: "info", upstream_message: expect.stringMatching(/^blocked: .{491}$/) });
    expect(JSON.stringify(line).match(/secret plan/g)?.length).toBeLessThan(42);
  });
});
