import { collectDefaultMetrics, Histogram, Registry } from "prom-client";
import { errorTable } from "../errors.ts";
import type { Sink } from "./bus.ts";
import { type Figures, registerCounter, registerFigures, type Tally } from "./figures.ts";
import type { ChatFinished } from "./types.ts";

export interface MetricsOptions {
  /** Names of the configured providers: no other gets a label of its own. */
  readonly providers: readonly string[];
  readonly figures: Figures;
  /**
   * Whether to add CPU, memory, garbage collection and event loop delay of the process. Once in a process: their
   * monitors cannot be stopped.
   */
  readonly processMetrics: boolean;
}

export interface Metrics {
  readonly sink: Sink;
  /** The Prometheus text. */
  text(): Promise<string>;
  /** Content type of the text. */
  readonly contentType: string;
}

const firstEventBuckets = [
  0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60, 120, 300, 600,
];
const perTokenBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5];
/** Endings without an error for anybody to read. A shutdown has one: it counts as shutting_down. */
const departures = ["client_gone", "reader_stalled"];
const limitRules = ["global", "concurrency"];
const tokenKinds = ["input", "cached", "output", "reasoning"] as const;
/** Takes the place of a label value that is not in its fixed set, so that nothing from outside can add series. */
const other = "other";
const maxCurrencies = 16;

/**
 * Counts events for Prometheus, in a registry of its own. Label values come from fixed sets: error codes, configured
 * providers, rules. Users, addresses and model names never become labels.
 */
export function createMetrics({ providers, figures, processMetrics }: MetricsOptions): Metrics {
  const registry = new Registry();
  if (processMetrics) collectDefaultMetrics({ register: registry });
  registerFigures(registry, figures);

  const requests = tallies(["ok", ...departures, ...Object.keys(errorTable)], (code) => ({
    // A client that leaves is no failure of the proxy; one that is cut off hasn't got its answer.
    status: code === "ok" || code === "client_gone" ? "ok" : "error",
    code,
  }));
  const logins = tallies(["success", "failure", "blocked"], (result) => ({ result }));
  const rejections = tallies(limitRules, (rule) => ({ rule }));
  let quotaRefusals = 0;
  let retries = 0;
  const [input, cached, output, reasoning] = tokenKinds.map((kind) =>
    tallies(providers, (provider) => ({ kind, provider })),
  ) as [Tallies, Tallies, Tallies, Tallies];
  // Money is summed up in whole nano-units; only the text is in units.
  const nanoSpent = new Map<string, number>();
  const firstEvent = histogram("upstream_latency_seconds", "Time to the first data event.", firstEventBuckets);
  const perToken = histogram("upstream_time_per_output_token_seconds", "Time per output token.", perTokenBuckets);

  const counter = registerCounter.bind(null, registry);
  counter("proxy_requests_total", "Requests answered, by the code of the answer.", ["status", "code"], requests.all);
  counter("login_attempts_total", "Logins tried, by result.", ["result"], logins.all);
  counter("rate_limit_rejections_total", "Requests refused by a limit.", ["rule"], rejections.all);
  counter("quota_exceeded_total", "Requests refused for want of quota.", [], () => [
    { labels: {}, count: quotaRefusals },
  ]);
  counter("proxy_retries_total", "Attempts at providers beyond the first.", [], () => [{ labels: {}, count: retries }]);
  counter("proxy_tokens_total", "Tokens charged.", ["kind", "provider"], () =>
    [input, cached, output, reasoning].flatMap((kind) => kind.all()),
  );
  counter("proxy_cost_total", "Cost charged, in units of the currency.", ["currency"], () =>
    Array.from(nanoSpent, ([currency, nano]) => ({ labels: { currency }, count: nano / 1e9 })),
  );

  function histogram(name: string, help: string, buckets: number[]): Histogram {
    return new Histogram({ name, help, buckets, registers: [registry] });
  }

  function countChat(chat: ChatFinished): void {
    requests.add(chat.code, 1);
    retries += chat.retries;
    if (chat.firstEventMs !== null) firstEvent.observe(chat.firstEventMs / 1000);
    // The first token marks the start of the generation, so it is not among those that took its time.
    if (chat.generationMs !== null && chat.outputTokens > 1 && !chat.estimated) {
      perToken.observe(chat.generationMs / 1000 / (chat.outputTokens - 1));
    }
    input.add(chat.provider, chat.inputTokens);
    cached.add(chat.provider, chat.cachedTokens);
    output.add(chat.provider, chat.outputTokens);
    reasoning.add(chat.provider, chat.reasoningTokens);
    if (chat.cost > 0) spend(chat.currency, chat.cost);
  }

  function spend(currency: string, nano: number): void {
    const known = nanoSpent.has(currency) || (nanoSpent.size < maxCurrencies && /^[A-Z]{3}$/.test(currency));
    const label = known ? currency : other;
    nanoSpent.set(label, (nanoSpent.get(label) ?? 0) + nano);
  }

  return {
    sink(event) {
      switch (event.type) {
        case "chat.finished":
          countChat(event);
          return;
        case "request.failed":
          requests.add(event.code, 1);
          return;
        case "login.succeeded":
          logins.add("success", 1);
          return;
        case "login.failed":
          logins.add(event.result, 1);
          return;
        case "quota.exceeded":
          quotaRefusals += 1;
          return;
        case "rate_limit.rejected":
          rejections.add(event.rule, 1);
          return;
        case "admin.changed":
        case "login.locked":
        case "login.unlocked":
        case "provider.alert":
        case "session.reuse_detected":
        case "session.ended":
        case "api_key.created":
        case "api_key.revoked":
        case "password.changed":
          return;
      }
    },
    text: () => registry.metrics(),
    contentType: registry.contentType,
  };
}

/** Counts by a label value. */
interface Tallies {
  /** Counts for a value; for "other" where it is not in the set. */
  readonly add: (value: string, amount: number) => void;
  readonly all: () => readonly Tally[];
}

function tallies(values: readonly string[], labelsOf: (value: string) => Record<string, string>): Tallies {
  const make = (value: string) => ({ labels: labelsOf(value), count: 0 });
  const made = new Map(values.map((value) => [value, make(value)]));
  const rest = made.get(other) ?? make(other);
  return {
    add(value, amount) {
      (made.get(value) ?? rest).count += amount;
    },
    // From the start at 0, so that the first error shows as a rise; "other" only where it happened.
    all: () => (rest.count > 0 && !made.has(other) ? [...made.values(), rest] : [...made.values()]),
  };
}
