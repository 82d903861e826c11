import { Counter, Gauge, type Registry } from "prom-client";

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
  /** The providers in use. */
  readonly providers: () => readonly ProviderGauges[];
  /** Lost lines of the proxy's own log. */
  readonly logLinesDropped: () => number;
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
  /** Reloads of the config; times in ms since the epoch. */
  readonly config: () => {
    readonly loadedAt: number;
    readonly invalid: unknown;
    readonly reloads: { readonly success: number; readonly failure: number };
  };
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

/** A count and its labels. */
export interface Tally {
  readonly labels: Readonly<Record<string, string>>;
  readonly count: number;
}

/** Adds a metric to the registry for each gauge. */
export function registerGauges(registry: Registry, gauges: Gauges): void {
  const gauge = (name: string, help: string, read: () => number): void => {
    new Gauge({
      name,
      help,
      registers: [registry],
      collect() {
        this.set(read());
      },
    });
  };
  gauge("proxy_requests_in_flight", "Chats that run now.", gauges.inFlight);
  gauge("proxy_overload_level", "Part of the new work that is refused, 0 to 1.", () => gauges.overload().level);
  gauge(
    "proxy_event_loop_delay_seconds",
    "How late the event loop is, over the last readings.",
    () => gauges.overload().loopDelayMs / 1000,
  );
  gauge("proxy_permits_held", "Permits that chats hold now.", gauges.permitsHeld);
  gauge("proxy_permits_waiting", "Chats that wait for a permit.", gauges.permitsWaiting);
  gauge("journal_unsynced_records", "Charges that a power loss now would lose.", gauges.journalUnsynced);
  gauge("behaviour_log_queued", "Behaviour log lines that wait to be written.", () => gauges.behaviourLog().queued);

  registerCounter(registry, "config_reloads_total", "Reloads of the config, by result.", ["result"], () =>
    Object.entries(gauges.config().reloads).map(([result, count]) => ({ labels: { result }, count })),
  );
  gauge("config_last_reload_successful", "1 unless the config on disk was refused.", () =>
    gauges.config().invalid === null ? 1 : 0,
  );
  gauge(
    "config_last_reload_success_timestamp_seconds",
    "When a config was last loaded or reloaded.",
    () => gauges.config().loadedAt / 1000,
  );

  new Gauge({
    name: "proxy_trust_users",
    help: "Users at each trust step whose behaviour is known.",
    labelNames: ["step"],
    registers: [registry],
    collect() {
      this.reset();
      for (const [step, users] of gauges.trust()) this.set({ step }, users);
    },
  });

  registerProviderGauges(registry, gauges.providers);
  const { redis } = gauges;
  if (redis !== undefined) {
    gauge("redis_connected", "Whether Redis answers.", () => (redis().connected ? 1 : 0));
    gauge("redis_calls_in_flight", "Calls to Redis without an answer yet.", () => redis().inFlight);
    registerCounter(registry, "redis_calls_troubled_total", "Calls to Redis by trouble.", ["trouble"], () => [
      { labels: { trouble: "failed" }, count: redis().failed },
      { labels: { trouble: "repeated" }, count: redis().repeated },
    ]);
  }
  registerCounter(registry, "behaviour_log_dropped_total", "Behaviour log lines lost.", ["reason"], () =>
    Object.entries(gauges.behaviourLog().dropped).map(([reason, count]) => ({ labels: { reason }, count })),
  );
  gauge("alerts_queued", "Alerts that wait for the webhook.", () => gauges.alerts()?.queued ?? 0);
  registerCounter(registry, "alerts_dropped_total", "Alerts that never reached the webhook.", ["reason"], () =>
    Object.entries(gauges.alerts()?.dropped ?? {}).map(([reason, count]) => ({ labels: { reason }, count })),
  );
  registerCounter(registry, "events_sink_errors_total", "Events that a sink failed on.", ["sink"], () =>
    Array.from(gauges.sinkErrors(), ([sink, count]) => ({ labels: { sink }, count })),
  );
  registerCounter(registry, "log_lines_dropped_total", "Lines of the proxy's own log lost.", [], () => [
    { labels: {}, count: gauges.logLinesDropped() },
  ]);
}

/** Adds the providers' metrics. A label contains the provider's name, never which key it was. */
function registerProviderGauges(registry: Registry, read: Gauges["providers"]): void {
  const gauge = (name: string, help: string, valueOf: (provider: ProviderGauges) => number | null): void => {
    new Gauge({
      name,
      help,
      labelNames: ["provider"],
      registers: [registry],
      collect() {
        // A provider that is no longer configured has no gauges.
        this.reset();
        for (const provider of read()) {
          const value = valueOf(provider);
          if (value !== null) this.set({ provider: provider.name }, value);
        }
      },
    });
  };
  const counter = (name: string, help: string, countOf: (provider: ProviderGauges) => number): void => {
    registerCounter(registry, name, help, ["provider"], () =>
      read().map((provider) => ({ labels: { provider: provider.name }, count: countOf(provider) })),
    );
  };
  gauge("upstream_requests_in_flight", "Requests to the provider under way.", ({ inFlight }) => inFlight);
  gauge("upstream_concurrency_limit", "Requests that the provider may have at once.", ({ cap }) => cap);
  gauge(
    "upstream_breakers_open",
    "Keys of the provider whose circuit breaker, or that of a model, is open or half-open.",
    ({ keys }) =>
      keys.filter(({ breaker, circuits }) =>
        [breaker, ...circuits.map((one) => one.breaker)].some((state) => state !== "closed"),
      ).length,
  );
  counter("upstream_requests_total", "Requests asked, retries included.", ({ asked }) => asked);
  counter("upstream_failures_total", "Requests that the provider failed.", ({ failed }) => failed);
  counter("upstream_retries_total", "Requests that were not the first of their request.", ({ retries }) => retries);
}

/**
 * Adds a counter that is counted elsewhere, in plain numbers, and copied at each scrape: counting through prom-client's
 * labels would take several µs per chat.
 */
export function registerCounter(
  registry: Registry,
  name: string,
  help: string,
  labelNames: readonly string[],
  read: () => readonly Tally[],
): void {
  new Counter({
    name,
    help,
    labelNames: [...labelNames],
    registers: [registry],
    collect() {
      this.reset();
      for (const { labels, count } of read()) this.inc(labels, count);
    },
  });
}
