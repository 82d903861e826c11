import { collectDefaultMetrics, Registry } from "prom-client";
import { errorTable } from "../errors.ts";
import type { Sink } from "./bus.ts";
import { contentTypes, formatFor, type MetricFamily, simpleFamily, type Tally, writeMetrics } from "./exposition.ts";
import { gaugeFamilies, type Gauges } from "./gauges.ts";
import { createHistogram } from "./histogram.ts";
import { routeGroups, rowOf, type ChatFinished, type EventCounter, type RouteGroup } from "./catalogue.ts";

export interface MetricsOptions {
  /** Names of the configured providers: others get no label of their own. */
  readonly providers: readonly string[];
  /** Names of the configured models: others get no label of their own, since clients choose the names. */
  readonly models: readonly string[];
  /** Names of the configured rate rules. */
  readonly rules: readonly string[];
  readonly gauges: Gauges;
  readonly version: string;
  /**
   * Whether to add CPU, memory, garbage collection and event loop delay of the process. At most once per process: their
   * monitors cannot be stopped.
   */
  readonly processMetrics: boolean;
}

export interface Metrics {
  readonly sink: Sink;
  /** Gives more providers, models and rules labels of their own. Those before keep theirs: a counter must not vanish. */
  configure(names: Pick<MetricsOptions, "providers" | "models" | "rules">): void;
  /** The metrics in the format that a scraper's Accept header asks for: OpenMetrics, or plain text. */
  scrape(accept: string | undefined): Promise<Scrape>;
}

interface Scrape {
  readonly contentType: string;
  readonly text: string;
}

const firstEventBuckets = [
  0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60, 120, 300, 600,
];
const perTokenBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5];
const durationBuckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600];
const queueBuckets = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120];
/** Outcomes where no client is left to receive an error. A shutdown sends one: it counts as shutting_down. */
const disconnects = ["client_gone", "reader_stalled"];
/** A user's cap, and the others. */
const concurrencyRules = ["", "_group", "_model", "_provider", "_process"].map((scope) => `concurrency${scope}`);
const limitRules = ["global", "per_user", "per_key", ...concurrencyRules, "overload"];
/** Replaces label values outside their fixed set, so that nothing from outside can add series. */
const other = "other";
const maxCurrencies = 16;
/** Maximum number of models with their own label; each has up to four series per provider. */
const maxModels = 200;
/** Maximum number of model families with their own label. */
const maxFamilies = 20;
/** APIs of chats; "" is a request that was refused before its API was known. */
const apis: ReadonlySet<string> = new Set(["chat", "beta_chat", "completions", "messages", "responses", "embeddings"]);
/** Maximum number of rate rules with their own label, over all reloads. */
const maxRules = 200;
/** Maximum number of providers with their own label, over all reloads. */
const maxProviders = 200;

/**
 * Counts events for Prometheus, in its own registry. Label values come from fixed sets: error codes, route groups,
 * configured providers and models, rules. Users, addresses and clients' model names never become labels.
 */
export function createMetrics({ providers, models, rules, gauges, version, processMetrics }: MetricsOptions): Metrics {
  const processFamilies = processMetrics ? readProcessMetrics() : null;
  const codes = ["ok", ...disconnects, ...Object.keys(errorTable)];
  const requests = new Map(
    routeGroups.map((route) => [
      route,
      tallies(
        codes,
        (code) => ({
          status: isFailure(code) ? "error" : "ok",
          code,
          route,
        }),
        // Several hundred series that stay at 0 are useless; the `ok` series exist from the start, so that the first
        // request shows as a rise.
        ["ok"],
      ),
    ]),
  );
  const counters: Readonly<Record<EventCounter, Tallies>> = {
    logins: tallies(["success", "failure", "blocked"], (result) => ({ result })),
    rejections: tallies(limitRules, (rule) => ({ rule })),
    quotaRefusals: tallies([""], () => ({})),
    trustMoves: tallies(["up", "down"], (direction) => ({ direction })),
  };
  let named = 0;
  const nameRules = (names: readonly string[]): void => {
    for (const name of names) if (named < maxRules && counters.rejections.addValue(name)) named++;
  };
  nameRules(rules);
  let retries = 0;
  const knownProviders = new Set(providers);
  const knownModels = new Set(models.slice(0, maxModels));
  const knownFamilies = new Set<string>();
  addNames(knownFamilies, models.map(familyOf), maxFamilies);

  function addNames(known: Set<string>, names: readonly string[], max: number): void {
    for (const name of names) if (known.size < max) known.add(name);
  }
  const tokens = new Map<string, Tally & { count: number }>();
  // Money is summed in whole nano-units; only the text is in units.
  const nanoSpent = new Map<string, Tally & { count: number }>();
  const currencies = new Set<string>();
  const chatLabels = ["api", "provider", "model_family"];
  const chats = new Map<string, Tally & { count: number }>();
  const firstEvent = createHistogram(
    ...(["upstream_latency_seconds", "Time to the first data event."] as const),
    ...([["provider"], firstEventBuckets] as const),
  );
  const perToken = createHistogram(
    ...(["upstream_time_per_output_token_seconds", "Time per output token."] as const),
    ...([["provider"], perTokenBuckets] as const),
  );
  const firstToken = createHistogram(
    ...([
      "proxy_time_to_first_token_seconds",
      "Time from the arrival of a chat to its first token, waiting included.",
    ] as const),
    ...([chatLabels, firstEventBuckets] as const),
  );
  const outputToken = createHistogram(
    ...(["proxy_time_per_output_token_seconds", "Time per output token after the first."] as const),
    ...([chatLabels, perTokenBuckets] as const),
  );
  const duration = createHistogram(
    ...(["proxy_request_duration_seconds", "Time from the arrival of a request to the end of its response."] as const),
    ...([["route", "status"], durationBuckets] as const),
  );
  const queue = createHistogram(
    ...(["proxy_queue_seconds", "Time that chats waited for a permit, if they did."] as const),
    ...([[], queueBuckets] as const),
  );

  const counter = simpleFamily.bind(null, "counter");
  const families: readonly MetricFamily[] = [
    simpleFamily("gauge", "proxy_build_info", "1; the version of the proxy is a label.", () => [
      { labels: { version }, count: 1 },
    ]),
    counter("proxy_requests_total", "Requests answered, by what the route is for and the code of the answer.", () =>
      [...requests.values()].flatMap((one) => one.all()),
    ),
    duration.family,
    counter("proxy_chats_total", "Chats that reached a provider, by how they ended.", () => chats.values()),
    firstToken.family,
    outputToken.family,
    firstEvent.family,
    perToken.family,
    queue.family,
    counter("login_attempts_total", "Logins tried, by result.", counters.logins.all),
    counter("rate_limit_rejections_total", "Requests refused by a limit.", counters.rejections.all),
    counter("quota_exceeded_total", "Requests refused for want of quota.", counters.quotaRefusals.all),
    counter("trust_changes_total", "Users that moved to another trust step.", counters.trustMoves.all),
    counter("proxy_retries_total", "Attempts at providers beyond the first.", () => [{ labels: {}, count: retries }]),
    counter("proxy_tokens_total", "Tokens charged.", () => tokens.values()),
    counter("proxy_cost_total", "Cost charged, in units of the currency.", () =>
      Array.from(nanoSpent.values(), ({ labels, count }) => ({ labels, count: count / 1e9 })),
    ),
    ...gaugeFamilies(gauges),
  ];

  function countChat(chat: ChatFinished): void {
    const { at, w3cTraceId, firstEventMs, generationMs, outputTokens } = chat;
    countRequest("api", chat.code, chat.durationMs, at, w3cTraceId);
    retries += chat.retries;
    const provider = knownProviders.has(chat.provider) ? chat.provider : other;
    const model = knownModels.has(chat.model) ? chat.model : other;
    if (chat.queueMs > 0) queue.observe([], chat.queueMs / 1000, at, w3cTraceId);
    if (chat.provider !== "") {
      const family = familyOf(chat.model);
      const labels = [apis.has(chat.api) ? chat.api : other, provider, knownFamilies.has(family) ? family : other];
      countEnd(labels, isFailure(chat.code) ? "error" : "ok");
      if (firstEventMs !== null) {
        firstEvent.observe([provider], firstEventMs / 1000, at, w3cTraceId);
        firstToken.observe(labels, (chat.queueMs + firstEventMs) / 1000, at, w3cTraceId);
      }
      // The first token marks the start of the generation, so it is not counted as generated during it.
      if (generationMs !== null && outputTokens > 1 && !chat.estimated) {
        const seconds = generationMs / 1000 / (outputTokens - 1);
        perToken.observe([provider], seconds, at, w3cTraceId);
        outputToken.observe(labels, seconds, at, w3cTraceId);
      }
    }
    // As in the usage of users: an answer that a provider broke off has tokens, and is charged to nobody.
    if (chat.requests > 0) {
      addTo(tokens, "input", provider, model, chat.inputTokens);
      addTo(tokens, "cached", provider, model, chat.cachedTokens);
      addTo(tokens, "output", provider, model, chat.outputTokens);
      addTo(tokens, "reasoning", provider, model, chat.reasoningTokens);
    }
    if (chat.cost > 0) spend(chat.currency, provider, model, chat.cost);
  }

  function countEnd(labels: readonly string[], status: string): void {
    const key = `${labels.join(" ")} ${status}`;
    const known = chats.get(key);
    if (known !== undefined) known.count++;
    else {
      const [api = other, provider = other, model_family = other] = labels;
      chats.set(key, { labels: { api, provider, model_family, status }, count: 1 });
    }
  }

  /** @param ms how long it took; undefined: not known */
  function countRequest(
    route: RouteGroup,
    code: string,
    ms: number | undefined,
    at: number,
    traceId: string | undefined,
  ): void {
    requests.get(route)?.add(code, 1);
    if (ms !== undefined) duration.observe([route, isFailure(code) ? "error" : "ok"], ms / 1000, at, traceId);
  }

  /** Counts by name, provider and model; all three come from bounded sets here. */
  function addTo(
    counts: typeof tokens,
    name: string,
    provider: string,
    model: string,
    amount: number,
    label = "kind",
  ): void {
    if (amount === 0) return;
    const series = `${name} ${provider} ${model}`;
    const known = counts.get(series);
    if (known === undefined) counts.set(series, { labels: { [label]: name, provider, model }, count: amount });
    else known.count += amount;
  }

  function spend(currency: string, provider: string, model: string, nano: number): void {
    const known = currencies.has(currency) || (currencies.size < maxCurrencies && /^[A-Z]{3}$/.test(currency));
    if (known) currencies.add(currency);
    addTo(nanoSpent, known ? currency : other, provider, model, nano, "currency");
  }

  return {
    sink(event) {
      if (event.type === "chat.finished") countChat(event);
      else if (event.type === "request.finished")
        countRequest(event.route, event.code, event.durationMs, event.at, event.w3cTraceId);
      else {
        const counted = rowOf(event).counts?.(event);
        if (counted !== undefined) counters[counted[0]].add(counted[1], 1);
      }
    },
    configure(names) {
      addNames(knownProviders, names.providers, maxProviders);
      addNames(knownModels, names.models, maxModels);
      addNames(knownFamilies, names.models.map(familyOf), maxFamilies);
      nameRules(names.rules);
    },
    async scrape(accept) {
      const format = formatFor(accept);
      const all = processFamilies === null ? families : [...families, ...(await processFamilies())];
      return { contentType: contentTypes[format], text: writeMetrics(all, format) };
    },
  };
}

/** A client that disconnects is no failure of the proxy; one that was cut off for reading too slowly got no response. */
function isFailure(code: string): boolean {
  return code !== "ok" && code !== "client_gone";
}

/** The family of a model: the first word of its name, without a vendor before it: `gpt`, `claude`, `deepseek`, `glm`. */
function familyOf(model: string): string {
  const name = model.slice(model.lastIndexOf("/") + 1);
  let end = 0;
  while (end < name.length && end < 20 && isLetter(name.charCodeAt(end))) end++;
  return end === 0 ? other : name.slice(0, end).toLowerCase();
}

function isLetter(code: number): boolean {
  return (code >= 0x61 && code <= 0x7a) || (code >= 0x41 && code <= 0x5a);
}

/** Counts by a label value. */
interface Tallies {
  /** Counts for a value; for "other" if it is not in the set. */
  readonly add: (value: string, amount: number) => void;
  readonly all: () => readonly Tally[];
  /** Adds a value to the set, with a series of its own. False if it was there already. */
  readonly addValue: (value: string) => boolean;
}

/** @param shown the values whose series exist from the start, at 0, so that the first one shows as a rise */
function tallies(
  values: readonly string[],
  labelsOf: (value: string) => Record<string, string>,
  shown: readonly string[] = values,
): Tallies {
  const make = (value: string) => ({ labels: labelsOf(value), count: 0 });
  const made = new Map(values.map((value) => [value, make(value)]));
  const rest = made.get(other) ?? make(other);
  const always = new Set(shown);
  return {
    add(value, amount) {
      (made.get(value) ?? rest).count += amount;
    },
    addValue(value) {
      if (made.has(value)) return false;
      always.add(value);
      made.set(value, make(value));
      return true;
    },
    all() {
      const some = [...made].filter(([value, { count }]) => count > 0 || always.has(value)).map(([, tally]) => tally);
      return rest.count > 0 && !made.has(other) ? [...some, rest] : some;
    },
  };
}

/** prom-client's metrics of the process, without gauges named `_total`: that is for counters only. */
function readProcessMetrics(): () => Promise<readonly MetricFamily[]> {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  for (const what of ["handles", "requests", "resources"]) registry.removeSingleMetric(`nodejs_active_${what}_total`);
  return async () => {
    const metrics: readonly ReadMetric[] = await registry.getMetricsAsJSON();
    return metrics.map(({ name, help, type, values }) => ({
      name,
      help,
      type: processTypes.get(String(type)) ?? "gauge",
      samples: () =>
        values.map(({ metricName, labels, value }) => ({
          name: metricName ?? name,
          labels: Object.fromEntries(Object.entries(labels).map(([label, of]) => [label, String(of)])),
          count: value,
        })),
    }));
  };
}

/** What prom-client gives, as far as it is needed. */
interface ReadMetric {
  readonly name: string;
  readonly help: string;
  readonly type: unknown;
  readonly values: readonly {
    readonly metricName?: string;
    readonly labels: object;
    readonly value: number;
  }[];
}

const processTypes = new Map<string, MetricFamily["type"]>([
  ["counter", "counter"],
  ["histogram", "histogram"],
  ["summary", "summary"],
]);
