import { describe, expect, it } from "vitest";
import { addRateHeaders, type RateHeaderStyle, rateHeaderNames } from "../../src/gateway/rate-headers.ts";
import type { RateLimitState } from "../../src/limits/rate-limiter.ts";
import { parseFieldList } from "../support/structured-field.ts";

const rpm: RateLimitState = {
  rule: "rpm",
  metric: "requests",
  max: 60,
  windowSeconds: 60,
  remaining: 30,
  resetMs: 30_000,
};
const tpm: RateLimitState = {
  rule: "tpm",
  metric: "tokens",
  max: 1000,
  windowSeconds: 60,
  remaining: 900,
  resetMs: 6001,
};
const out: RateLimitState = { ...tpm, rule: "out", metric: "output_tokens", remaining: 10, resetMs: 120 };

function headers(
  states: readonly RateLimitState[],
  { style = "openai", retryAfterMs = null }: { style?: RateHeaderStyle; retryAfterMs?: number | null } = {},
): ReadonlyMap<string, string> {
  const list: string[] = [];
  const isoTime = (ms: number) => new Date(ms).toISOString();
  addRateHeaders(list, states, { style, now: Date.UTC(2026, 10, 26), isoTime, retryAfterMs });
  return new Map(Array.from({ length: list.length / 2 }, (_, at) => [list[2 * at] ?? "", list[2 * at + 1] ?? ""]));
}

describe("the headers of rates", () => {
  it("are structured fields, the rule with the least left first", () => {
    const all = headers([rpm, tpm, out]);
    expect(parseFieldList(all.get("ratelimit-policy") ?? null)).toEqual([
      { name: "out", q: 1000, w: 60, qu: "output_tokens" },
      { name: "rpm", q: 60, w: 60 },
      { name: "tpm", q: 1000, w: 60, qu: "tokens" },
    ]);
    expect(parseFieldList(all.get("ratelimit") ?? null)).toEqual([
      { name: "out", r: 10, t: 1 },
      { name: "rpm", r: 30, t: 30 },
      { name: "tpm", r: 900, t: 7 },
    ]);
  });

  it("are of the rule that takes longest where several are used up", () => {
    const slow = { ...rpm, rule: "slow", max: 2, windowSeconds: 3600, remaining: 0, resetMs: 1_800_000 };
    const both = headers([{ ...rpm, remaining: 0, resetMs: 18_000 }, slow], { retryAfterMs: 1_800_000 });
    expect(both.get("x-ratelimit-limit-requests")).toBe("2");
    expect(both.get("x-ratelimit-reset-requests")).toBe("30m0s");
  });

  it("are never more than the limit, whatever the burst", () => {
    expect(headers([{ ...rpm, remaining: 119 }]).get("x-ratelimit-remaining-requests")).toBe("60");
  });

  it("are OpenAI's, of requests and of tokens, or of the output's where only that is limited", () => {
    expect(Object.fromEntries(headers([rpm, tpm, out]))).toMatchObject({
      "x-ratelimit-limit-requests": "60",
      "x-ratelimit-remaining-requests": "30",
      "x-ratelimit-reset-requests": "30s",
      "x-ratelimit-limit-tokens": "1000",
      "x-ratelimit-remaining-tokens": "900",
      "x-ratelimit-reset-tokens": "7s",
    });
    expect(Object.fromEntries(headers([out]))).toMatchObject({
      "x-ratelimit-remaining-tokens": "10",
      "x-ratelimit-reset-tokens": "120ms",
    });
    expect(headers([out]).has("x-ratelimit-limit-requests")).toBe(false);
    for (const [resetMs, text] of [
      [0, "0s"],
      [999, "999ms"],
      [60_000, "1m0s"],
      [3_599_001, "1h0m0s"],
      [7_384_000, "2h3m4s"],
    ] as const) {
      expect(headers([{ ...rpm, resetMs }]).get("x-ratelimit-reset-requests")).toBe(text);
    }
  });

  it("are Anthropic's for its clients", () => {
    const all = headers([rpm, tpm, out], { style: "anthropic" });
    expect(Object.fromEntries(all)).toMatchObject({
      "anthropic-ratelimit-requests-limit": "60",
      "anthropic-ratelimit-requests-remaining": "30",
      "anthropic-ratelimit-requests-reset": "2026-11-26T00:00:30.000Z",
      "anthropic-ratelimit-tokens-remaining": "900",
      "anthropic-ratelimit-output-tokens-remaining": "10",
    });
    expect([...all.keys()].some((name) => name.startsWith("x-ratelimit"))).toBe(false);
  });

  it("name no more than eight rules, and nothing later than Retry-After", () => {
    const many = Array.from({ length: 20 }, (_, index) => ({ ...rpm, rule: `r${index}`, remaining: 60 - index }));
    const all = headers(many, { retryAfterMs: 2500 });
    const shown = parseFieldList(all.get("ratelimit") ?? null);
    expect(shown.map(({ name }) => name)).toEqual(["r19", "r18", "r17", "r16", "r15", "r14", "r13", "r12"]);
    expect(new Set(shown.map(({ t }) => t))).toEqual(new Set([3]));
  });

  it("are all among those that web pages may read, and absent where no rule applies", () => {
    for (const style of ["openai", "anthropic"] as const) {
      for (const name of headers([rpm, tpm, out], { style }).keys()) expect(rateHeaderNames).toContain(name);
    }
    expect(headers([]).size).toBe(0);
  });
});
