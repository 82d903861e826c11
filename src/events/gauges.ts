import { type MetricFamily, simpleFamily, type Tally } from "./exposition.ts";
import { forwarderFamilies } from "./forwarders/forwarder-metrics.ts";
import type { SinkCounts } from "./open-events.ts";
import type { Forwarding } from "./forwarders/open-forwarders.ts";

/** Functions that read other components' state at the time of a scrape; so gauges cost nothing while requests run. */
export interface Gauges {
  /** Running chats. */
  readonly inFlight: () => number;
  /** The level of overload, and the mean delay of the event loop in ms. */
  readonly overload: () => { readonly level: number; readonly loopDelayMs: number };
  /** Permits that are held. */
  readonly permitsHeld: () => number;
  /** Chats that wait for a permit. */
  readonly permitsWaiting: () => number;
  /** Journal records that are written but not yet synced to disk. */
  readonly journalUnsynced: () => number;
  readonly behaviourLog: () => { readonly queued: number; readonly dropped: Readonly<Record<string, number>> };
  /** Alerts for the webhook; undefined if there is no webhook. */
  readonly alerts: () => { readonly queued: number; readonly dropped: Readonly<Record<string, number>> } | undefined;
  /** Events that a sink failed on, by the sink's name. */
  readonly sinkErrors: () => ReadonlyMap<string, number>;
  /** What sinks have in their queues and have lost, by name. */
  readonly sinks?: (() => readonly SinkCounts[]) | undefined;
  /** Spans on their way to a collector; undefined: nothing is traced. */
  readonly spans?:
    | (() => { readonly queued: number; readonly exported: number; readonly dropped: Readonly<Record<string, number>> })
    | undefined;
  /** The providers in use. */
  readonly providers: () => readonly ProviderGauges[];
  /** Lost lines of the proxy's own log. */
  readonly logLinesDropped: () => number;
  /** What carries events to Redis and Kafka. */
  readonly forwarding?: Pick<Forwarding, "forwarders" | "spoolBytes">;
  /** How many users are at each trust step. */
  readonly trust: () => ReadonlyMap<string, number>;
  /** The connection to Redis; undefined: the state is this process's alone, and has no such metrics. */
  readonly redis?:
    | (() => {
        readonly connected: boolean;
        readonly inFlight: number;
        readonly failed: number;
        readonly repeated: number;
      })
    | undefined;
  /** What is served while Redis is away; undefined: nothing. */
  readonly allowance?: (() => AllowanceGauges) | undefined;
  /** Reloads of the config; times in ms since the epoch. */
  readonly config: () => {
    readonly loadedAt: number;
    readonly invalid: unknown;
    readonly reloads: { readonly success: number; readonly failure: number };
  };
}

interface AllowanceGauges {
  readonly serves: boolean;
  readonly served: number;
  readonly unreported: number;
  readonly held: number;
}

type CircuitState = "closed" | "open" | "half_open";

/** The state of a provider, over all of its keys. Counts are since the start. */
interface ProviderGauges {
  readonly name: string;
  readonly inFlight: number;
  /** Most requests at once, as it is now; null: no cap. */
  readonly cap: number | null;
  readonly asked: number;
  readonly failed: number;
  readonly retries: number;
  readonly keys: readonly {
    readonly breaker: CircuitState;
    readonly circuits: readonly { readonly breaker: CircuitState }[];
  }[];
}

const gauge = (name: string, help: string, read: () => number): MetricFamily =>
  simpleFamily("gauge", name, help, () => [{ labels: {}, count: read() }]);

function allowanceFamilies(read: () => AllowanceGauges): readonly MetricFamily[] {
  return [
    gauge("allowance_serving", "Whether requests are served without Redis now.", () => (read().serves ? 1 : 0)),
    gauge("allowance_held", "Users for whom this process holds a part of their limits in advance.", () => read().held),
    gauge("allowance_unreported_charges", "Charges that Redis does not have yet.", () => read().unreported),
    simpleFamily("counter", "allowance_requests_total", "Requests admitted without Redis.", () => [
      { labels: {}, count: read().served },
    ]),
  ];
}

/** The metrics of what other components count. */
export function gaugeFamilies(gauges: Gauges): readonly MetricFamily[] {
  const counter = simpleFamily.bind(null, "counter");
  const { redis, allowance, spans, forwarding } = gauges;
  return [
    gauge("proxy_requests_in_flight", "Chats that run now.", gauges.inFlight),
    gauge("proxy_overload_level", "Part of the new work that is refused, 0 to 1.", () => gauges.overload().level),
    gauge(
      "proxy_event_loop_delay_seconds",
      "How late the event loop is, over the last readings.",
      () => gauges.overload().loopDelayMs / 1000,
    ),
    gauge("proxy_permits_held", "Permits that chats hold now.", gauges.permitsHeld),
    gauge("proxy_permits_waiting", "Chats that wait for a permit.", gauges.permitsWaiting),
    gauge("journal_unsynced_records", "Charges that a power loss now would lose.", gauges.journalUnsynced),
    counter("config_reloads_total", "Reloads of the config, by result.", () =>
      Object.entries(gauges.config().reloads).map(([result, count]) => ({ labels: { result }, count })),
    ),
    gauge("config_last_reload_successful", "1 unless the config on disk was refused.", () =>
      gauges.config().invalid === null ? 1 : 0,
    ),
    gauge(
      "config_last_reload_success_timestamp_seconds",
      "When a config was last loaded or reloaded.",
      () => gauges.config().loadedAt / 1000,
    ),
    simpleFamily("gauge", "proxy_trust_users", "Users at each trust step whose behaviour is known.", () =>
      Array.from(gauges.trust(), ([step, count]) => ({ labels: { step }, count })),
    ),
    ...providerFamilies(gauges.providers),
    ...(redis === undefined
      ? []
      : [
          gauge("redis_connected", "Whether Redis answers.", () => (redis().connected ? 1 : 0)),
          gauge("redis_calls_in_flight", "Calls to Redis without an answer yet.", () => redis().inFlight),
          counter("redis_calls_troubled_total", "Calls to Redis by trouble.", () => [
            { labels: { trouble: "failed" }, count: redis().failed },
            { labels: { trouble: "repeated" }, count: redis().repeated },
          ]),
        ]),
    ...(allowance === undefined ? [] : allowanceFamilies(allowance)),
    ...(forwarding === undefined ? [] : forwarderFamilies(forwarding)),
    gauge("behaviour_log_queued", "Behaviour log lines that wait to be written.", () => gauges.behaviourLog().queued),
    counter("behaviour_log_dropped_total", "Behaviour log lines lost.", () => byReason(gauges.behaviourLog().dropped)),
    gauge("alerts_queued", "Alerts that wait for the webhook.", () => gauges.alerts()?.queued ?? 0),
    counter("alerts_dropped_total", "Alerts that never reached the webhook.", () =>
      byReason(gauges.alerts()?.dropped ?? {}),
    ),
    counter("events_sink_errors_total", "Events that a sink failed on.", () =>
      Array.from(gauges.sinkErrors(), ([sink, count]) => ({ labels: { sink }, count })),
    ),
    simpleFamily("gauge", "events_sink_queued", "Events that wait in the queue of a sink.", () =>
      (gauges.sinks?.() ?? []).map(({ name, queued }) => ({ labels: { sink: name }, count: queued })),
    ),
    counter("events_sink_dropped_total", "Events that a sink has lost.", () =>
      (gauges.sinks?.() ?? []).flatMap(({ name, dropped }) =>
        byReason(dropped).map(({ labels, count }) => ({ labels: { sink: name, ...labels }, count })),
      ),
    ),
    counter("log_lines_dropped_total", "Lines of the proxy's own log lost.", () => [
      { labels: {}, count: gauges.logLinesDropped() },
    ]),
    ...(spans === undefined
      ? []
      : [
          gauge("traces_spans_queued", "Spans that wait for the collector.", () => spans().queued),
          counter("traces_spans_exported_total", "Spans that the collector has taken.", () => [
            { labels: {}, count: spans().exported },
          ]),
          counter("traces_spans_dropped_total", "Spans that never reached the collector.", () =>
            byReason(spans().dropped),
          ),
        ]),
  ];
}

function byReason(counts: Readonly<Record<string, number>>): readonly Tally[] {
  return Object.entries(counts).map(([reason, count]) => ({ labels: { reason }, count }));
}

/** The providers' metrics. A label contains the provider's name, never which key it was. */
function providerFamilies(read: Gauges["providers"]): readonly MetricFamily[] {
  const family = (
    type: "counter" | "gauge",
    name: string,
    help: string,
    valueOf: (provider: ProviderGauges) => number | null,
  ): MetricFamily =>
    // A provider that is no longer configured has none.
    simpleFamily(type, name, help, () =>
      read().flatMap((provider) => {
        const count = valueOf(provider);
        return count === null ? [] : [{ labels: { provider: provider.name }, count }];
      }),
    );
  const gauge = family.bind(null, "gauge");
  const counter = family.bind(null, "counter");
  return [
    gauge("upstream_requests_in_flight", "Requests to the provider under way.", ({ inFlight }) => inFlight),
    gauge("upstream_concurrency_limit", "Requests that the provider may have at once.", ({ cap }) => cap),
    gauge("upstream_keys", "Keys of the provider.", ({ keys }) => keys.length),
    gauge(
      "upstream_breakers_open",
      "Keys of the provider whose circuit breaker, or that of a model, is open or half-open.",
      ({ keys }) =>
        keys.filter(({ breaker, circuits }) =>
          [breaker, ...circuits.map((one) => one.breaker)].some((state) => state !== "closed"),
        ).length,
    ),
    counter("upstream_requests_total", "Requests asked, retries included.", ({ asked }) => asked),
    counter("upstream_failures_total", "Requests that the provider failed.", ({ failed }) => failed),
    counter("upstream_retries_total", "Requests that were not the first of their request.", ({ retries }) => retries),
  ];
}
