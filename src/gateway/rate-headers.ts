import type { RateLimitState } from "../limits/rate-limiter.ts";

/** Whose names of headers a client reads, beside those of the IETF's draft. */
export type RateHeaderStyle = "openai" | "anthropic";

interface RateHeaderOptions {
  readonly style: RateHeaderStyle;
  /** ms since the epoch. */
  readonly now: number;
  readonly isoTime: (ms: number) => string;
  /** What Retry-After says, in ms: no rule may say more. null: the request was let through. */
  readonly retryAfterMs: number | null;
}

/** Rules named in one header; those with the least left go first. */
const maxShown = 8;

/**
 * What is left of the rates, in headers: RateLimit-Policy and RateLimit as in draft-ietf-httpapi-ratelimit-headers-11,
 * and those that OpenAI's or Anthropic's clients read, from the rule with the least left of each kind.
 * @param to names and values in turn
 */
export function addRateHeaders(to: string[], states: readonly RateLimitState[], options: RateHeaderOptions): void {
  if (states.length === 0) return;
  const { retryAfterMs } = options;
  // Of several that are used up, the one that takes longest is what a client has to wait for.
  const tightest = [...states].sort((a, b) => shareLeft(a) - shareLeft(b) || b.resetMs - a.resetMs);
  const shown = tightest.slice(0, maxShown);
  to.push("ratelimit-policy", shown.map(policyOf).join(", "));
  const longestSeconds = retryAfterMs === null ? Infinity : wholeSeconds(retryAfterMs);
  to.push(
    "ratelimit",
    shown
      .map(({ rule, remaining, resetMs }) => `"${rule}";r=${remaining};t=${Math.min(longestSeconds, seconds(resetMs))}`)
      .join(", "),
  );
  const requests = tightest.find(({ metric }) => metric === "requests");
  const tokens = tightest.find(({ metric }) => metric === "tokens");
  const output = tightest.find(({ metric }) => metric === "output_tokens");
  if (options.style === "openai") {
    addOpenAi(to, "requests", requests);
    addOpenAi(to, "tokens", tokens ?? output);
  } else {
    addAnthropic(to, "requests", requests, options);
    addAnthropic(to, "tokens", tokens ?? output, options);
    addAnthropic(to, "output-tokens", output, options);
  }
}

/** Retry-After in whole seconds: never too early, at least 1. */
function wholeSeconds(ms: number): number {
  return Math.max(1, seconds(ms));
}

function seconds(ms: number): number {
  return Math.ceil(ms / 1000);
}

function shareLeft({ remaining, max }: RateLimitState): number {
  return remaining / max;
}

/** `requests` is the draft's default unit; the others are our own. No partition key: it would name users. */
function policyOf({ rule, metric, max, windowSeconds }: RateLimitState): string {
  const unit = metric === "requests" ? "" : `;qu="${metric}"`;
  return `"${rule}";q=${max};w=${windowSeconds}${unit}`;
}

/** What is left, without the part of a burst above the limit: clients subtract it from the limit. */
function ofLimit({ remaining, max }: RateLimitState): number {
  return Math.min(remaining, max);
}

function addOpenAi(to: string[], what: string, state: RateLimitState | undefined): void {
  if (state === undefined) return;
  to.push(`x-ratelimit-limit-${what}`, String(state.max));
  to.push(`x-ratelimit-remaining-${what}`, String(ofLimit(state)));
  to.push(`x-ratelimit-reset-${what}`, goDuration(state.resetMs));
}

function addAnthropic(
  to: string[],
  what: string,
  state: RateLimitState | undefined,
  { now, isoTime }: RateHeaderOptions,
): void {
  if (state === undefined) return;
  to.push(`anthropic-ratelimit-${what}-limit`, String(state.max));
  to.push(`anthropic-ratelimit-${what}-remaining`, String(ofLimit(state)));
  to.push(`anthropic-ratelimit-${what}-reset`, isoTime(now + state.resetMs));
}

/** As OpenAI writes durations: `120ms`, `1s`, `6m0s`, `1h0m0s`. */
function goDuration(ms: number): string {
  if (ms < 1000) return ms === 0 ? "0s" : `${ms}ms`;
  const total = seconds(ms);
  const [hours, minutes] = [Math.floor(total / 3600), Math.floor(total / 60) % 60];
  return `${hours > 0 ? `${hours}h` : ""}${total >= 60 ? `${minutes}m` : ""}${total % 60}s`;
}

/** All headers of this file, for the list of those that web pages may read. */
export const rateHeaderNames: readonly string[] = [
  "ratelimit",
  "ratelimit-policy",
  ...["limit", "remaining", "reset"].flatMap((what) => [
    ...["requests", "tokens"].map((unit) => `x-ratelimit-${what}-${unit}`),
    ...["requests", "tokens", "output-tokens"].map((unit) => `anthropic-ratelimit-${unit}-${what}`),
  ]),
];
