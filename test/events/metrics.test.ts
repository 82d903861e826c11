import { describe, expect, test } from "vitest";
import type { Gauges } from "../../src/events/gauges.ts";
import { createMetrics, type Metrics } from "../../src/events/metrics.ts";
import type { ProxyEvent } from "../../src/events/catalogue.ts";
import { chatFinished, loginFailed } from "../support/events.ts";

const quiet: Gauges = {
  inFlight: () => 0,
  overload: () => ({ level: 0, loopDelayMs: 0 }),
  permitsHeld: () => 0,
  permitsWaiting: () => 0,
  journalUnsynced: () => 0,
  behaviourLog: () => ({ queued: 0, dropped: { queue_full: 0 } }),
  sinkErrors: () => new Map(),
  providers: () => [],
  logLinesDropped: () => 0,
  alerts: () => undefined,
  trust: () => new Map([["normal", 2]]),
  config: () => ({ loadedAt: 5000, invalid: null, reloads: { success: 2, failure: 1 } }),
};

const meter = (gauges = quiet) =>
  createMetrics({
    providers: ["deepseek", "zhipu"],
    models: ["deepseek-flash"],
    rules: [],
    gauges,
    version: "1.2.3",
    processMetrics: false,
  });
const base = { at: 0, traceId: "t", ip: "192.0.2.1" };

/** The samples after these events, by series. */
async function samplesAfter(...events: readonly ProxyEvent[]): Promise<Map<string, number>> {
  const metrics = meter();
  for (const event of events) metrics.sink(event);
  return samplesOf(await textOf(metrics));
}

async function textOf(metrics: Metrics, accept?: string): Promise<string> {
  return (await metrics.scrape(accept)).text;
}

function samplesOf(text: string): Map<string, number> {
  const lines = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.slice(line.lastIndexOf(" ")))]),
  );
}

describe("metrics", () => {
  test("tokens are those that are charged: what a provider breaks off is not", async () => {
    const broken = { outcome: "upstream_failed", code: "upstream_error", requests: 0, cost: 0 } as const;
    const samples = await samplesAfter(chatFinished(broken), chatFinished());
    expect(samples.get('proxy_tokens_total{kind="input",provider="deepseek",model="deepseek-flash"}')).toBe(100);
    expect(samples.get('proxy_tokens_total{kind="output",provider="deepseek",model="deepseek-flash"}')).toBe(11);
  });

  test("a chat is counted by the code of its answer, with tokens, cost and times", async () => {
    const samples = await samplesAfter(chatFinished({ retries: 2 }), chatFinished());
    expect(samples.get('proxy_requests_total{status="ok",code="ok",route="api"}')).toBe(2);
    expect(samples.get('proxy_tokens_total{kind="input",provider="deepseek",model="deepseek-flash"}')).toBe(200);
    expect(samples.get('proxy_tokens_total{kind="cached",provider="deepseek",model="deepseek-flash"}')).toBe(80);
    expect(samples.get('proxy_tokens_total{kind="output",provider="deepseek",model="deepseek-flash"}')).toBe(22);
    expect(samples.get('proxy_tokens_total{kind="reasoning",provider="deepseek",model="deepseek-flash"}')).toBe(10);
    expect(samples.get('proxy_cost_total{currency="CNY",provider="deepseek",model="deepseek-flash"}')).toBe(0.000003);
    expect(samples.get("proxy_retries_total")).toBe(2);
    expect(samples.get('upstream_latency_seconds_bucket{le="0.02",provider="deepseek"}')).toBe(0);
    expect(samples.get('upstream_latency_seconds_bucket{le="0.04",provider="deepseek"}')).toBe(2);
    // 200 ms for the ten tokens after the first.
    expect(samples.get('upstream_time_per_output_token_seconds_bucket{le="0.01",provider="deepseek"}')).toBe(0);
    expect(samples.get('upstream_time_per_output_token_seconds_bucket{le="0.025",provider="deepseek"}')).toBe(2);
  });

  test("costs add up without rounding errors", async () => {
    const tenths = Array.from({ length: 10_000 }, () => chatFinished({ cost: 100_000_001 }));
    expect(
      (await samplesAfter(...tenths)).get(
        'proxy_cost_total{currency="CNY",provider="deepseek",model="deepseek-flash"}',
      ),
    ).toBe(1000.00001);
  });

  test("refusals are counted by code, rule and result", async () => {
    const samples = await samplesAfter(
      chatFinished({ code: "quota_exceeded", status: 402, provider: "", firstEventMs: null, generationMs: null }),
      { ...base, type: "quota.exceeded", user: "alice", metric: "requests", per: "month" },
      { ...base, type: "rate_limit.rejected", user: "alice", rule: "global" },
      { ...base, type: "request.finished", route: "auth", code: "invalid_token", status: 401 },
      { ...base, type: "login.succeeded", user: "alice" },
      loginFailed(),
      loginFailed({ result: "blocked" }),
    );
    expect(samples.get('proxy_requests_total{status="error",code="quota_exceeded",route="api"}')).toBe(1);
    expect(samples.get('proxy_requests_total{status="error",code="invalid_token",route="auth"}')).toBe(1);
    expect(samples.get("quota_exceeded_total")).toBe(1);
    expect(samples.get('rate_limit_rejections_total{rule="global"}')).toBe(1);
    expect(samples.get('rate_limit_rejections_total{rule="concurrency"}')).toBe(0);
    for (const result of ["success", "failure", "blocked"]) {
      expect(samples.get(`login_attempts_total{result="${result}"}`)).toBe(1);
    }
    expect(samples.has("upstream_latency_seconds_count")).toBe(false);
  });

  test("figures of other parts are read when somebody asks, and again the next time", async () => {
    let inFlight = 3;
    const metrics = meter({
      ...quiet,
      inFlight: () => inFlight,
      permitsWaiting: () => 4,
      journalUnsynced: () => 5,
      behaviourLog: () => ({ queued: 6, dropped: { queue_full: 7 } }),
      sinkErrors: () => new Map([["metrics", 8]]),
      logLinesDropped: () => 9,
    });
    await textOf(metrics);
    inFlight = 2;
    const samples = samplesOf(await textOf(metrics));
    expect(samples.get("proxy_requests_in_flight")).toBe(2);
    expect(samples.get("proxy_permits_waiting")).toBe(4);
    expect(samples.get("journal_unsynced_records")).toBe(5);
    expect(samples.get("behaviour_log_queued")).toBe(6);
    expect(samples.get('behaviour_log_dropped_total{reason="queue_full"}')).toBe(7);
    expect(samples.get('events_sink_errors_total{sink="metrics"}')).toBe(8);
    expect(samples.get("log_lines_dropped_total")).toBe(9);
  });

  test("ten thousand users, addresses, models, providers, codes and currencies add no series but `other`", async () => {
    const metrics = meter();
    metrics.sink(chatFinished());
    const before = samplesOf(await textOf(metrics));
    for (let i = 0; i < 10_000; i++) {
      const from = { ...base, user: `user${i}`, ip: `192.0.2.${i}`, traceId: `trace${i}` };
      const chat = { ...from, model: `m${i}`, provider: `p${i}`, code: `c${i}`, outcome: `o${i}`, currency: `x${i}` };
      metrics.sink(chatFinished(chat));
      metrics.sink(loginFailed({ ...from, reason: `r${i}` }));
      metrics.sink({ ...from, type: "rate_limit.rejected", rule: `rule${i}` });
      metrics.sink({ ...from, type: "request.finished", route: "auth", code: `code${i}`, status: 400 });
    }
    const added = [...samplesOf(await textOf(metrics)).keys()].filter(
      (series) => !before.has(series) && !/_seconds_(bucket|sum|count)/.test(series),
    );
    expect(added.sort()).toEqual([
      'proxy_chats_total{api="chat",provider="other",model_family="other",status="error"}',
      'proxy_cost_total{currency="other",provider="other",model="other"}',
      'proxy_requests_total{status="error",code="other",route="api"}',
      'proxy_requests_total{status="error",code="other",route="auth"}',
      'proxy_tokens_total{kind="cached",provider="other",model="other"}',
      'proxy_tokens_total{kind="input",provider="other",model="other"}',
      'proxy_tokens_total{kind="output",provider="other",model="other"}',
      'proxy_tokens_total{kind="reasoning",provider="other",model="other"}',
      'rate_limit_rejections_total{rule="other"}',
    ]);
  });

  test("invented currency codes of the right shape end up in `other` too", async () => {
    const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ".split("");
    const samples = await samplesAfter(...letters.map((letter) => chatFinished({ currency: `AA${letter}` })));
    expect([...samples.keys()].filter((series) => series.startsWith("proxy_cost_total"))).toHaveLength(17);
  });

  test("chats are measured by API, provider and family of models; exemplars lead to traces where they are asked for", async () => {
    const metrics = meter();
    const w3cTraceId = "0af7651916cd43dd8448eb211c80319c";
    metrics.sink(chatFinished({ queueMs: 500, w3cTraceId }));
    metrics.sink(chatFinished({ outcome: "upstream_failed", code: "upstream_error", firstEventMs: null }));
    metrics.sink({ ...base, type: "request.finished", route: "admin", code: "ok", status: 200, durationMs: 20 });
    const plain = await textOf(metrics);
    const samples = samplesOf(plain);
    const labels = 'api="chat",provider="deepseek",model_family="deepseek"';
    expect(samples.get(`proxy_time_to_first_token_seconds_bucket{le="0.5",${labels}}`)).toBe(0);
    expect(samples.get(`proxy_time_to_first_token_seconds_bucket{le="0.75",${labels}}`)).toBe(1);
    expect(samples.get(`proxy_time_per_output_token_seconds_count{${labels}}`)).toBe(2);
    expect(samples.get(`proxy_chats_total{${labels},status="error"}`)).toBe(1);
    expect(samples.get('proxy_request_duration_seconds_bucket{le="0.025",route="admin",status="ok"}')).toBe(1);
    expect(plain).not.toContain(w3cTraceId);

    const accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
    const { contentType, text } = await metrics.scrape(accept);
    expect(contentType).toMatch(/^application\/openmetrics-text; version=1.0.0/);
    expect(text).toContain(
      `proxy_time_to_first_token_seconds_bucket{le="0.75",${labels}} 1 # {trace_id="${w3cTraceId}"} 0.53 `,
    );
    expect(text).toContain("# TYPE proxy_requests counter\n");
    expect(text.endsWith("# EOF\n")).toBe(true);
  });

  test("moves between trust steps and spans are counted", async () => {
    const metrics = meter({
      ...quiet,
      spans: () => ({ queued: 1, exported: 2, dropped: { queue_full: 3 } }),
      sinks: () => [{ name: "redis", queued: 4, dropped: { spool_full: 5 } }],
    });
    const move = { ...base, type: "trust.changed", user: "alice", from: "normal", to: "watched" } as const;
    metrics.sink({ ...move, direction: "down", score: 60, reasons: [] });
    const samples = samplesOf(await textOf(metrics));
    expect(samples.get('trust_changes_total{direction="down"}')).toBe(1);
    expect(samples.get('traces_spans_dropped_total{reason="queue_full"}')).toBe(3);
    expect(samples.get('events_sink_dropped_total{sink="redis",reason="spool_full"}')).toBe(5);
  });

  test("two meters in one process don't meet, and a process's own metrics can be added", async () => {
    const one = createMetrics({
      providers: [],
      models: [],
      rules: [],
      gauges: quiet,
      version: "1",
      processMetrics: true,
    });
    const two = meter();
    one.sink(chatFinished());
    expect(samplesOf(await textOf(two)).get('proxy_requests_total{status="ok",code="ok",route="api"}')).toBe(0);
    const text = await textOf(one);
    expect(text).toContain("nodejs_eventloop_lag_p99_seconds");
    expect(text).toContain("process_cpu_seconds_total");
    expect((await one.scrape(undefined)).contentType).toMatch(/^text\/plain/);
  });
});
