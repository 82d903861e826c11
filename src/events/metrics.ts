import { collectDefaultMetrics, Histogram, Registry } from "prom-client";
import { errorTable } from "../errors.ts";
import type { Sink } from "./bus.ts";
import { type Gauges, registerCounter, registerGauges, type Tally } from "./gauges.ts";
import { routeGroups, rowOf, type ChatFinished, type EventCounter, type RouteGroup } from "./catalogue.ts";

export interface MetricsOptions {
  /** Names of the configured providers: others get no label of their own. */
  readonly providers: readonly string[];
  /** Names of the configured models: others get no label of their own, since clients choose the names. */
  readonly models: readonly string[];
  /** Names of the configured rate rules. */
  readonly rules: readonly string[];
  readonly gauges: Gauges;
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
  /** The metrics in Prometheus text format. */
  text(): Promise<string>;
  /** Content type of the text. */
  readonly contentType: string;
}

const firstEventBuckets = [
  0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60, 120, 300, 600,
];
const perTokenBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5];
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
/** Maximum number of rate rules with their own label, over all reloads. */
const maxRules = 200;
/** Maximum number of providers with their own label, over all reloads. */
const maxProviders = 200;

/**
 * Counts events for Prometheus, in its own registry. Label values come from fixed sets: error codes, route groups,
 * configured providers and models, rules. Users, addresses and clients' model names never become labels.
 */
export function createMetrics({ providers, models, rules, gauges, processMetrics }: MetricsOptions): Metrics {
  const registry = new Registry();
  if (processMetrics) addProcessMetrics(registry);
  registerGauges(registry, gauges);

  const codes = ["ok", ...disconnects, ...Object.keys(errorTable)];
  const requests = new Map(
    routeGroups.map((route) => [
      route,
      tallies(
        codes,
        (code) => ({
          // A client that disconnects is no failure of the proxy; one that was cut off for reading too slowly did not
          // get its response.
          status: code === "ok" || code === "client_gone" ? "ok" : "error",
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
  };
  let named = 0;
  const nameRules = (names: readonly string[]): void => {
    for (const name of names) if (named < maxRules && counters.rejections.addValue(name)) named++;
  };
  nameRules(rules);
  let retries = 0;
  const knownProviders = new Set(providers);
  const knownModels = new Set(models.slice(0, maxModels));

  function addNames(known: Set<string>, names: readonly string[], max: number): void {
    for (const name of names) if (known.size < max) known.add(name);
  }
  const tokens = new Map<string, Tally & { count: number }>();
  // Money is summed in whole nano-units; only the text is in units.
  const nanoSpent = new Map<string, Tally & { count: number }>();
  const currencies = new Set<string>();
  const firstEvent = histogram("upstream_latency_seconds", "Time to the first data event.", firstEventBuckets);
  const perToken = histogram("upstream_time_per_output_token_seconds", "Time per output token.", perTokenBuckets);

  const queue = new Histogram({
    ...{ name: "proxy_queue_seconds", help: "Time that chats waited for a permit, if they did." },
    ...{ buckets: queueBuckets, registers: [registry] },
  });

  const counter = registerCounter.bind(null, registry);
  counter(
    "proxy_requests_total",
    "Requests answered, by what the route is for and the code of the answer.",
    ["status", "code", "route"],
    () => [...requests.values()].flatMap((one) => one.all()),
  );
  counter("login_attempts_total", "Logins tried, by result.", ["result"], counters.logins.all);
  counter("rate_limit_rejections_total", "Requests refused by a limit.", ["rule"], counters.rejections.all);
  counter("quota_exceeded_total", "Requests refused for want of quota.", [], counters.quotaRefusals.all);
  counter("proxy_retries_total", "Attempts at providers beyond the first.", [], () => [{ labels: {}, count: retries }]);
  counter("proxy_tokens_total", "Tokens charged.", ["kind", "provider", "model"], () => [...tokens.values()]);
  counter("proxy_cost_total", "Cost charged, in units of the currency.", ["currency", "provider", "model"], () =>
    Array.from(nanoSpent.values(), ({ labels, count }) => ({ labels, count: count / 1e9 })),
  );

  function histogram(name: string, help: string, buckets: number[]): Histogram {
    return new Histogram({ name, help, buckets, labelNames: ["provider"], registers: [registry] });
  }

  function countChat(chat: ChatFinished): void {
    countRequest("api", chat.code);
    retries += chat.retries;
    const provider = knownProviders.has(chat.provider) ? chat.provider : other;
    const model = knownModels.has(chat.model) ? chat.model : other;
    if (chat.queueMs > 0) queue.observe(chat.queueMs / 1000);
    if (chat.firstEventMs !== null) firstEvent.observe({ provider }, chat.firstEventMs / 1000);
    // The first token marks the start of the generation, so it is not counted as generated during it.
    if (chat.generationMs !== null && chat.outputTokens > 1 && !chat.estimated) {
      perToken.observe({ provider }, chat.generationMs / 1000 / (chat.outputTokens - 1));
    }
    addTo(tokens, "input", provider, model, chat.inputTokens);
    addTo(tokens, "cached", provider, model, chat.cachedTokens);
    addTo(tokens, "output", provider, model, chat.outputTokens);
    addTo(tokens, "reasoning", provider, model, chat.reasoningTokens);
    if (chat.cost > 0) spend(chat.currency, provider, model, chat.cost);
  }

  function countRequest(route: RouteGroup, code: string): void {
    requests.get(route)?.add(code, 1);
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
      else if (event.type === "request.finished") countRequest(event.route, event.code);
      else {
        const counted = rowOf(event).counts?.(event);
        if (counted !== undefined) counters[counted[0]].add(counted[1], 1);
      }
    },
    configure(names) {
      addNames(knownProviders, names.providers, maxProviders);
      addNames(knownModels, names.models, maxModels);
      nameRules(names.rules);
    },
    text: () => registry.metrics(),
    contentType: registry.contentType,
  };
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

/** Default metrics of the process, without gauges named `_total`: `_total` is for counters only. */
function addProcessMetrics(registry: Registry): void {
  collectDefaultMetrics({ register: registry });
  for (const what of ["handles", "requests", "resources"]) registry.removeSingleMetric(`nodejs_active_${what}_total`);
}
