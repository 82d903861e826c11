import { describe, expect, it } from "vitest";
import { providerKinds } from "../../src/providers/kinds/kinds.ts";
import { UpstreamError, type UpstreamErrorKind } from "../../src/providers/upstream-error.ts";

describe("where the APIs of a provider are", () => {
  const deepseek = "https://api.deepseek.com";
  const anywhere = "https://host/some/where";

  it.each<[keyof typeof providerKinds, string, readonly (string | null)[]]>([
    ["deepseek", deepseek, ["", "/beta", "/beta", "/anthropic/v1", null, ""]],
    ["deepseek", `${deepseek}/v1`, ["/v1", "/beta", "/beta", "/anthropic/v1", null, ""]],
    ["deepseek", `${deepseek}/beta`, ["/beta", "/beta", "/beta", "/anthropic/v1", null, ""]],
    ["simulator", "http://127.0.0.1:1", ["", "/beta", "/beta", "/anthropic/v1", "", ""]],
    ["openai", "https://api.openai.com/v1", ["/v1", "/v1", "/v1", null, "/v1", "/v1"]],
    ["openai", anywhere, ["/some/where", "/some/where", "/some/where", null, "/some/where", "/some/where"]],
    [
      "zhipu",
      "https://open.bigmodel.cn/api/paas/v4",
      ["/api/paas/v4", "/api/paas/v4", null, "/api/anthropic/v1", "/api/paas/v4", null],
    ],
    [
      "zhipu",
      "https://api.z.ai/api/coding/paas/v4",
      ["/api/coding/paas/v4", "/api/coding/paas/v4", null, "/api/anthropic/v1", "/api/coding/paas/v4", null],
    ],
  ])("%s at %s", (kind, url, roots) => {
    const base = new URL(url).pathname.replace(/\/$/, "");
    const ends = ["/chat/completions", "/chat/completions", "/completions", "/messages", "/embeddings", "/responses"];
    const paths = (["chat", "beta_chat", "completions", "messages", "embeddings", "responses"] as const).map((api) =>
      providerKinds[kind].pathOf(api, base, "a-model"),
    );
    expect(paths).toEqual(roots.map((root, at) => (root === null ? null : `${root}${ends[at]}`)));
  });
});

describe("a kind of provider", () => {
  it.each(Object.entries(providerKinds))("%s has the name under which it is listed", (name, kind) => {
    expect(kind.name).toBe(name);
    expect(new URL(kind.defaultBaseUrl).protocol).toBe("https:");
  });

  it("sends its key in its own way, and Anthropic's version only where that API is", () => {
    for (const name of ["deepseek", "zhipu", "simulator", "openai"] as const) {
      const kind = providerKinds[name];
      expect(kind.authorization("sk-1")).toEqual({ authorization: "Bearer sk-1" });
      expect(kind.headersOf("chat", "sk-1")).toEqual({});
    }
    expect(providerKinds.deepseek.headersOf("messages", "sk-1")).toEqual({
      "anthropic-version": "2023-06-01",
      "x-api-key": "sk-1",
    });
    expect(providerKinds.deepseek.headersOf("messages", "")).toEqual({ "anthropic-version": "2023-06-01" });
  });

  it("knows where to see whether it works, and DeepSeek's how much money is left", () => {
    const { deepseek, openai } = providerKinds;
    expect(["/v1", "/beta", ""].map((base) => deepseek.probe.pathOf(base))).toEqual(Array(3).fill("/user/balance"));
    expect(openai.probe.pathOf("/v1")).toBe("/v1/models");
    const balance = { is_available: true, balance_infos: [{ currency: "CNY", total_balance: "110.00" }] };
    expect(deepseek.probe.readBalance(balance)).toEqual({
      available: true,
      amounts: [{ currency: "CNY", total: "110.00" }],
    });
    expect(openai.probe.readBalance(balance)).toBeNull();
  });
});

describe("what a client is told", () => {
  const kinds: readonly (readonly [UpstreamErrorKind, number, string])[] = [
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
    ["unsupported", 502, "upstream_error"],
    ["forbidden", 403, "upstream_forbidden"],
    ["proxy_overloaded", 503, "proxy_overloaded"],
  ];

  it.each(kinds)("of %s is %i %s", (kind, status, code) => {
    const error = new UpstreamError({ kind, stage: "first_event", upstreamMessage: "their words" }).toAppError();
    expect(error).toMatchObject({ status, code });
    // Their words are passed on only where they are about the client's own request.
    const clients = ["content_refused", "bad_request", "forbidden", "model_unknown"].includes(kind);
    expect(error.message === "their words").toBe(clients);
    expect(error.extras.retryAfterSeconds === undefined).toBe(![429, 503].includes(status));
  });

  it("is not to be retried where the proxy has asked more than once", () => {
    const fault = new UpstreamError({ kind: "network", stage: "connect" });
    expect(fault.toAppError().extras.shouldRetry).toBeUndefined();
    fault.attempts = 1;
    expect(fault.toAppError().extras.shouldRetry).toBeUndefined();
    fault.attempts = 2;
    expect(fault.toAppError().extras.shouldRetry).toBe(false);
  });
});
