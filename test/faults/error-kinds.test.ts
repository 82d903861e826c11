import { fc } from "../support/fast-check.ts";
import { describe, expect, it } from "vitest";
import { kindOfError } from "../../src/providers/error-kinds.ts";
import type { UpstreamErrorKind } from "../../src/providers/upstream-error.ts";
import { findError, readErrorBody } from "../../src/providers/stream/reported-error.ts";
import { providerKinds } from "../../src/providers/kinds/kinds.ts";

type Kind = keyof typeof providerKinds;

const kinds: readonly Kind[] = ["deepseek", "openai", "simulator", "zhipu"];
const secret = "sk-own-key-0123456789";

/** What a body with this status means, of a key that has worked unless said otherwise. */
function kindOf(status: number, body: unknown, options: { dialect?: Kind; keyWorked?: boolean } = {}) {
  const { dialect = "openai", keyWorked = true } = options;
  const error = readErrorBody(typeof body === "string" ? body : JSON.stringify(body));
  return kindOfError(providerKinds[dialect], { status, error, model: "tin-5" }, { secret, keyWorked });
}

const error = (fields: object) => ({ error: { message: "no", ...fields } });

describe("an HTTP status without more words", () => {
  const rows: readonly (readonly [number, UpstreamErrorKind])[] = [
    [400, "bad_request"],
    [401, "key_refused"],
    [402, "no_balance"],
    [403, "forbidden"],
    [404, "unsupported"],
    [405, "unsupported"],
    [407, "unsupported"],
    [408, "timeout"],
    [409, "bad_request"],
    [410, "unsupported"],
    [413, "bad_request"],
    [415, "bad_request"],
    [421, "unsupported"],
    [422, "bad_request"],
    [425, "overloaded"],
    [429, "rate_limited"],
    [431, "unsupported"],
    [451, "content_refused"],
    [498, "overloaded"],
    [499, "server_error"],
    [500, "server_error"],
    [502, "server_error"],
    [503, "overloaded"],
    [504, "server_error"],
    [529, "overloaded"],
    [301, "invalid_response"],
    [302, "invalid_response"],
  ];
  it.each(rows)("%i is %s, whatever the form of the body and the kind of provider", (status, kind) => {
    const bodies = ["", "no", "<html><h1>no</h1></html>", "{}", "[]", '{"error":{}}', error({}), { detail: "no" }];
    for (const dialect of kinds) {
      for (const body of bodies) expect(kindOf(status, body, { dialect }), JSON.stringify(body)).toBe(kind);
    }
  });
});

describe("P4: what an error under 200 means", () => {
  /** An error event without a status of its own, by its code or type. */
  const words: readonly (readonly [string, UpstreamErrorKind])[] = [
    ["rate_limit_exceeded", "rate_limited"],
    ["rate_limit_error", "rate_limited"],
    ["RateLimitExceeded", "rate_limited"],
    ["too_many_requests", "rate_limited"],
    ["ThrottlingException", "rate_limited"],
    ["RESOURCE_EXHAUSTED", "rate_limited"],
    ["overloaded_error", "overloaded"],
    ["engine_overloaded_error", "overloaded"],
    ["service_unavailable_error", "overloaded"],
    ["server_is_overloaded", "overloaded"],
    ["content_filter", "content_refused"],
    ["content_policy_violation", "content_refused"],
    ["data_inspection_failed", "content_refused"],
    ["invalid_prompt", "content_refused"],
    ["insufficient_quota", "no_balance"],
    ["insufficient_balance", "no_balance"],
    ["exceeded_current_quota_error", "no_balance"],
    ["billing_error", "no_balance"],
    ["Arrearage", "no_balance"],
    ["authentication_error", "key_refused"],
    ["invalid_api_key", "key_refused"],
    ["UNAUTHENTICATED", "key_refused"],
    ["account_deactivated", "key_refused"],
    ["model_not_found", "model_unknown"],
    ["ModelNotFound", "model_unknown"],
    ["DeploymentNotFound", "model_unknown"],
    ["permission_error", "forbidden"],
    ["PERMISSION_DENIED", "forbidden"],
    ["timeout_error", "timeout"],
    ["DEADLINE_EXCEEDED", "timeout"],
    ["server_error", "server_error"],
    ["internal_error", "server_error"],
    ["api_error", "server_error"],
    ["invalid_request_error", "bad_request"],
    ["InvalidParameter", "bad_request"],
    ["INVALID_ARGUMENT", "bad_request"],
    ["context_length_exceeded", "bad_request"],
    ["model_context_window_exceeded", "bad_request"],
    ["request_too_large", "bad_request"],
    ["string_above_max_length", "bad_request"],
    ["unsupported_parameter", "bad_request"],
    ["too_many_images_invalid", "bad_request"],
    ["json_validate_failed", "bad_request"],
    ["never_heard_of", "server_error"],
    ["", "server_error"],
  ];
  it.each(words)("%s is %s, as a code and as a type", (name, kind) => {
    expect(kindOf(200, error({ code: name }))).toBe(kind);
    expect(kindOf(200, error({ type: name }))).toBe(kind);
    expect(kindOf(200, error({ code: "of_their_own", type: name }))).toBe(kind);
  });

  const statuses: readonly (readonly [number, UpstreamErrorKind])[] = [
    [400, "bad_request"],
    [401, "key_refused"],
    [402, "no_balance"],
    [403, "forbidden"],
    [404, "unsupported"],
    [413, "bad_request"],
    [422, "bad_request"],
    [429, "rate_limited"],
    [500, "server_error"],
    [503, "overloaded"],
    [599, "server_error"],
  ];
  it.each(statuses)("%i inside the error is the same as that status", (status, kind) => {
    for (const value of [status, String(status)]) {
      for (const key of ["code", "status_code", "status", "statusCode", "http_status", "http_code"]) {
        expect(kindOf(200, error({ [key]: value })), key).toBe(kind);
        expect(kindOf(200, { message: "no", [key]: value }), key).toBe(kind);
      }
    }
  });

  it("looks at numbers first, then at the code, then at the type", () => {
    expect(kindOf(200, error({ status_code: 400, code: "tool_bad", type: "server_error" }))).toBe("bad_request");
    expect(kindOf(200, error({ code: 502, type: "invalid_request_error" }))).toBe("server_error");
    expect(kindOf(200, error({ code: 500, status_code: 400 }))).toBe("server_error");
    expect(kindOf(200, error({ code: "overloaded", type: "invalid_request_error" }))).toBe("overloaded");
    expect(kindOf(200, error({ code: "tool_bad", type: "invalid_request_error" }))).toBe("bad_request");
  });

  it("takes no other number for a status", () => {
    for (const code of [0, 1, 200, 399, 600, 40.5, 4000, "4 00", "0x190", "4e2", -400, true, null]) {
      expect(kindOf(200, error({ code, type: "invalid_request_error" })), String(code)).toBe("bad_request");
      expect(kindOf(200, error({ code })), String(code)).toBe("server_error");
    }
  });

  const events: readonly (readonly [string, object, boolean])[] = [
    ["an object", { error: { message: "no" } }, true],
    ["an empty object", { error: {} }, true],
    ["bare text", { error: "no" }, true],
    ["true", { error: true }, true],
    ["a list", { error: [{ message: "no" }] }, true],
    ["beside choices", { error: { message: "no" }, choices: [{ index: 0, delta: {} }] }, true],
    [
      "inside a choice",
      {
        choices: [
          { index: 0, delta: {} },
          { index: 1, error: { message: "no" } },
        ],
      },
      true,
    ],
    ["the event itself, by its object", { object: "error", message: "no", code: 400 }, true],
    ["the event itself, by its type", { type: "error", message: "no" }, true],
    ["the event itself, by its code", { code: "InvalidParameter", message: "no" }, true],
    ["the event itself, by its status", { status: 400, message: "no" }, true],
    ["the event itself, with a detail", { detail: "no" }, true],
    ["null", { error: null, choices: [{ index: 0, delta: { content: "a" }, error: null }] }, false],
    ["nothing", { choices: [{ index: 0, delta: { content: "error" } }] }, false],
    ["success by number", { code: 0, message: "ok" }, false],
    ["success by name", { code: "Success", message: "ok" }, false],
    ["a list of data", { data: [], code: "x", message: "no" }, false],
  ];
  it.each(events)("finds an error: %s", (_what, event, found) => {
    expect(findError({ ...event }) !== null).toBe(found);
  });
});

describe("P3: a 403 is about the request", () => {
  const contents = [
    error({ message: "input was flagged", code: 403 }),
    error({ message: "You don't have access to this", type: "permission_error" }),
    { detail: "Forbidden" },
    { message: "blocked by policy of your organisation" },
    "this prompt is not allowed; see the keyboard shortcuts and the token limits",
    "<html><h1>403 Forbidden</h1></html>",
    "",
    "[]",
    error({ message: "Your account may not send this prompt" }),
  ];
  it.each(contents)("%j", (body) => {
    expect(kindOf(403, body)).toBe("forbidden");
    // Nobody knows what it is about while the key itself is in doubt.
    expect(kindOf(403, body, { keyWorked: false })).toBe("key_refused");
  });

  it.each([
    error({ message: "Your API key has been disabled" }),
    error({ message: "Your account is suspended: the api-key was revoked" }),
    error({ message: "This key is not active" }),
    error({ message: `${secret} may not be used here` }),
    error({ message: "Key limit exceeded (total limit)" }),
    error({ message: "no", code: "invalid_api_key" }),
    error({ message: "no", type: "authentication_error" }),
    error({ message: "no", code: "account_deactivated" }),
    { detail: "Invalid access token" },
    "API key expired",
    "该令牌已过期",
    "API 密钥无效",
  ])("unless it names the key: %j", (body) => {
    expect(kindOf(403, body)).toBe("key_refused");
  });

  it("says by its code what else it is, whether the key has worked or not", () => {
    for (const keyWorked of [true, false]) {
      expect(kindOf(403, error({ code: "model_not_found" }), { keyWorked })).toBe("model_unknown");
      expect(kindOf(403, error({ code: "content_filter" }), { keyWorked })).toBe("content_refused");
      expect(kindOf(403, error({ code: "insufficient_quota" }), { keyWorked })).toBe("no_balance");
    }
  });
});

describe("P11: a body that contradicts its status", () => {
  const rows: readonly (readonly [number, unknown, UpstreamErrorKind])[] = [
    [404, error({ message: "no route /chat" }), "unsupported"],
    [404, error({ message: "Unknown path /v1/models/chat" }), "unsupported"],
    [404, { detail: "Not Found" }, "unsupported"],
    [404, "404 page not found", "unsupported"],
    [404, "<html>model</html>", "unsupported"],
    [404, error({ message: "no route for x", type: "invalid_request_error", param: null, code: null }), "unsupported"],
    [404, error({ message: "The model `tin-9` does not exist" }), "model_unknown"],
    [404, error({ message: "models/tin-9 is not found for API version v1beta" }), "model_unknown"],
    [404, error({ message: "no", code: "model_not_found" }), "model_unknown"],
    [404, error({ message: "no", param: "model" }), "model_unknown"],
    [404, error({ message: "模型不存在" }), "model_unknown"],
    [404, { error: "'tin-5' not found, try pulling it first" }, "model_unknown"],
    [404, { error: "no route /tin-5/chat" }, "unsupported"],
    [404, { type: "error", error: { type: "not_found_error", message: "model: tin-5" } }, "model_unknown"],
    [404, error({ message: "File file-1 not found", param: "file_id" }), "bad_request"],
    [410, error({ message: "This model has been retired" }), "model_unknown"],
    [405, error({ message: "Method Not Allowed" }), "unsupported"],
    [429, error({ code: "insufficient_quota" }), "no_balance"],
    [429, error({ type: "exceeded_current_quota_error" }), "no_balance"],
    [429, error({ type: "engine_overloaded_error" }), "overloaded"],
    [429, error({ code: "rate_limit_exceeded", type: "tokens" }), "rate_limited"],
    [429, error({ type: "invalid_request_error" }), "rate_limited"],
    [429, error({ message: "Request too large for tin-5: limit 30000, requested 60000" }), "bad_request"],
    [413, error({ code: "rate_limit_exceeded", type: "tokens" }), "bad_request"],
    [400, error({ code: "content_policy_violation" }), "content_refused"],
    [400, error({ code: "invalid_api_key" }), "key_refused"],
    [
      400,
      [error({ code: 400, message: "API key not valid. Please pass one.", status: "INVALID_ARGUMENT" })],
      "key_refused",
    ],
    [400, error({ message: "messages.0.content quotes: API key not valid" }), "bad_request"],
    [400, error({ type: "server_error" }), "bad_request"],
    [400, error({ code: "ThrottlingException" }), "rate_limited"],
    [400, error({ code: "too_many_images" }), "bad_request"],
    [400, error({ code: 429 }), "rate_limited"],
    [422, error({ code: "model_not_found" }), "model_unknown"],
    [500, error({ type: "invalid_request_error", code: "context_length_exceeded" }), "bad_request"],
    [500, error({ code: 400 }), "bad_request"],
    [500, error({ type: "server_error" }), "server_error"],
    [502, error({ code: "content_filter" }), "content_refused"],
    [503, error({ code: "model_not_found", message: "No available channel" }), "model_unknown"],
    [503, error({ type: "service_unavailable_error" }), "overloaded"],
    [402, error({ type: "invalid_request_error" }), "no_balance"],
    [401, error({ type: "invalid_request_error", code: "invalid_api_key" }), "key_refused"],
    [302, error({ code: 400, type: "invalid_request_error" }), "invalid_response"],
  ];
  it.each(rows)("%i %j is %s", (status, body, kind) => {
    expect(kindOf(status, body)).toBe(kind);
  });
});

describe("each provider's own codes and words", () => {
  const rows: readonly (readonly [Kind, number, object, UpstreamErrorKind])[] = [
    ["deepseek", 402, { message: "Insufficient Balance", type: "unknown_error" }, "no_balance"],
    ["deepseek", 429, { code: "rate_limit_reached_error" }, "rate_limited"],
    ["deepseek", 400, { message: "Model Not Exist", type: "invalid_request_error" }, "model_unknown"],
    ["deepseek", 400, { message: "Content Exists Risk", code: "invalid_request_error" }, "content_refused"],
    ["simulator", 200, { message: "Content Exists Risk", code: "invalid_request_error" }, "content_refused"],
    ["zhipu", 401, { code: "1000" }, "key_refused"],
    ["zhipu", 401, { code: "1003" }, "key_refused"],
    ["zhipu", 429, { code: "1113" }, "no_balance"],
    ["zhipu", 500, { code: "1200" }, "server_error"],
    ["zhipu", 400, { code: "1210" }, "bad_request"],
    ["zhipu", 400, { code: "1211" }, "model_unknown"],
    ["zhipu", 400, { code: 1211 }, "model_unknown"],
    ["zhipu", 400, { code: "1261" }, "bad_request"],
    ["zhipu", 400, { code: "1301" }, "content_refused"],
    ["zhipu", 429, { code: "1302" }, "rate_limited"],
    ["zhipu", 429, { code: "1303" }, "rate_limited"],
    ["zhipu", 429, { code: "1304" }, "no_balance"],
    ["zhipu", 429, { code: "1305" }, "overloaded"],
    ["zhipu", 429, { code: "1308" }, "no_balance"],
    ["zhipu", 429, { code: "1310" }, "no_balance"],
    ["zhipu", 429, { code: "1312" }, "overloaded"],
    ["zhipu", 200, { code: "1301" }, "content_refused"],
    ["zhipu", 429, { code: "9999" }, "rate_limited"],
    ["openai", 429, { code: "1305" }, "rate_limited"],
  ];
  it.each(rows)("%s: %i %j is %s", (dialect, status, fields, kind) => {
    expect(kindOf(status, error(fields), { dialect })).toBe(kind);
  });
});

it("reads any body, hostile ones as well, without failing", () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 6 }), fc.integer({ min: 200, max: 599 }), (value, status) => {
      for (const body of [JSON.stringify(value), JSON.stringify({ error: value }), `<${JSON.stringify(value)}`])
        kindOf(status, body);
    }),
  );
  for (const piece of ["api key ", "eyJ-", "://::", "models/", "[[[[", '{"a":', "Bearer "]) {
    const text = piece.repeat((64 << 10) / piece.length);
    kindOf(403, text);
    kindOf(404, error({ message: text, code: text, detail: [text] }));
  }
});
