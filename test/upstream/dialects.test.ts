import { describe, expect, it } from "vitest";
import { dialects } from "../../src/upstream/providers/dialects.ts";
import { UpstreamFault, type FaultKind } from "../../src/upstream/faults.ts";

type Row = readonly [status: number, code: string, kind: FaultKind, message?: string];

const common: readonly Row[] = [
  [400, "", "bad_request"],
  [401, "", "key_refused"],
  [402, "", "no_balance"],
  [403, "", "key_refused"],
  [404, "", "model_unknown"],
  [408, "", "timeout"],
  [413, "", "bad_request"],
  [422, "", "bad_request"],
  [429, "", "rate_limited"],
  [500, "", "server_error"],
  [502, "", "server_error"],
  [503, "", "overloaded"],
  [529, "", "overloaded"],
  [302, "", "invalid_response"],
];

const own = {
  deepseek: [
    [402, "invalid_request_error", "no_balance", "Insufficient Balance"],
    [429, "rate_limit_reached_error", "rate_limited"],
    [400, "invalid_request_error", "model_unknown", "Model Not Exist"],
    [400, "invalid_request_error", "content_refused", "Content Exists Risk"],
    [200, "overloaded", "overloaded"],
    [200, "server_error", "server_error"],
    [200, "", "server_error"],
  ],
  zhipu: [
    [401, "1000", "key_refused"],
    [401, "1003", "key_refused"],
    [429, "1113", "no_balance"],
    [500, "1200", "server_error"],
    [400, "1210", "bad_request"],
    [400, "1211", "model_unknown"],
    [400, "1261", "bad_request"],
    [400, "1301", "content_refused"],
    [429, "1302", "rate_limited"],
    [429, "1303", "rate_limited"],
    [429, "1304", "no_balance"],
    [429, "1305", "overloaded"],
    [429, "1308", "no_balance"],
    [429, "1310", "no_balance"],
    [429, "1312", "overloaded"],
    [200, "1301", "content_refused"],
  ],
  openai: [
    [429, "insufficient_quota", "no_balance"],
    [429, "rate_limit_exceeded", "rate_limited"],
    [400, "content_policy_violation", "content_refused"],
    [404, "model_not_found", "model_unknown"],
    [403, "model_not_found", "model_unknown"],
    [400, "context_length_exceeded", "bad_request"],
    [200, "rate_limit_exceeded", "rate_limited"],
    [200, "context_length_exceeded", "bad_request"],
  ],
} as const satisfies Record<string, readonly Row[]>;

describe.each(Object.values(dialects))("the errors of $kind", (dialect) => {
  const rows = ([...common, ...own[dialect.kind === "simulator" ? "deepseek" : dialect.kind]] as readonly Row[]).map(
    ([status, code, expected, message = ""]) => ({
      status,
      code,
      expected,
      message,
    }),
  );

  it.each(rows)("$status $code $message is $expected", ({ status, code, expected, message }) => {
    expect(dialect.classify(status, code, message)).toBe(expected);
  });
});

describe("where the APIs of a provider are", () => {
  const deepseek = "https://api.deepseek.com";
  const anywhere = "https://host/some/where";

  it.each<[keyof typeof dialects, string, readonly (string | null)[]]>([
    ["deepseek", deepseek, ["", "/beta", "/beta", "/anthropic/v1", null]],
    ["deepseek", `${deepseek}/v1`, ["/v1", "/beta", "/beta", "/anthropic/v1", null]],
    ["deepseek", `${deepseek}/beta`, ["/beta", "/beta", "/beta", "/anthropic/v1", null]],
    ["simulator", "http://127.0.0.1:1", ["", "/beta", "/beta", "/anthropic/v1", ""]],
    ["openai", "https://api.openai.com/v1", ["/v1", "/v1", "/v1", null, "/v1"]],
    ["openai", anywhere, ["/some/where", "/some/where", "/some/where", null, "/some/where"]],
    [
      "zhipu",
      "https://open.bigmodel.cn/api/paas/v4",
      ["/api/paas/v4", "/api/paas/v4", null, "/api/anthropic/v1", "/api/paas/v4"],
    ],
    [
      "zhipu",
      "https://api.z.ai/api/coding/paas/v4",
      ["/api/coding/paas/v4", "/api/coding/paas/v4", null, "/api/anthropic/v1", "/api/coding/paas/v4"],
    ],
  ])("%s at %s", (kind, url, roots) => {
    const base = new URL(url).pathname.replace(/\/$/, "");
    const ends = ["/chat/completions", "/chat/completions", "/completions", "/messages", "/embeddings"];
    const paths = (["chat", "beta_chat", "completions", "messages", "embeddings"] as const).map((api) =>
      dialects[kind].pathOf(api, base),
    );
    expect(paths).toEqual(roots.map((root, at) => (root === null ? null : `${root}${ends[at]}`)));
  });
});

describe("what a client is told", () => {
  const kinds: readonly (readonly [FaultKind, number, string])[] = [
    ["rate_limited", 429, "upstream_rate_limited"],
    ["overloaded", 503, "upstream_overloaded"],
    ["timeout", 504, "upstream_timeout"],
    ["network", 502, "upstream_error"],
    ["server_error", 502, "upstream_error"],
    ["invalid_response", 502, "upstream_invalid_response"],
    ["truncated", 502, "upstream_truncated"],
    ["content_refused", 400, "content_refused"],
    ["bad_request", 400, "upstream_rejected"],
    ["model_unknown", 404, "model_not_found"],
    ["key_refused", 503, "upstream_unavailable"],
    ["no_balance", 503, "upstream_unavailable"],
    ["unavailable", 503, "upstream_unavailable"],
  ];

  it.each(kinds)("of %s is %i %s", (kind, status, code) => {
    const error = new UpstreamFault({ kind, stage: "first_event", upstreamMessage: "their words" }).toAppError();
    expect(error).toMatchObject({ status, code });
    // Their words are passed on only where they are about the client's own request.
    expect(error.message === "their words").toBe(kind === "content_refused" || kind === "bad_request");
    expect(error.extras.retryAfterSeconds === undefined).toBe(![429, 503].includes(status));
  });

  it("is not to be retried where the proxy has asked more than once", () => {
    const fault = new UpstreamFault({ kind: "network", stage: "connect" });
    expect(fault.toAppError().extras.shouldRetry).toBeUndefined();
    fault.attempts = 1;
    expect(fault.toAppError().extras.shouldRetry).toBeUndefined();
    fault.attempts = 2;
    expect(fault.toAppError().extras.shouldRetry).toBe(false);
  });
});
