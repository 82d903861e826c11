import { Counter, Gauge, type Registry } from "prom-client";

/** Where the figures of other parts are read, at the time of a scrape; so they cost nothing while requests run. */
export interface Figures {
  /** Chats that run now. */
  readonly inFlight: () => number;
  /** Chats that wait for a permit. */
  readonly permitsWaiting: () => number;
  /** Journal records that are written but not yet synced to disk. */
  readonly journalUnsynced: () => number;
  readonly behaviourLog: () => { readonly queued: number; readonly dropped: Readonly<Record<string, number>> };
  /** Events that a sink failed on, by the sink's name. */
  readonly sinkErrors: () => ReadonlyMap<string, number>;
  /** Lines of the proxy's own log that were lost. */
  readonly logLinesDropped: () => number;
}

/** A count and the labels it goes by. */
export interface Tally {
  readonly labels: Readonly<Record<string, string>>;
  readonly count: number;
}

/** Adds a metric to the registry for each figure. */
export function registerFigures(registry: Registry, figures: Figures): void {
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
  gauge("proxy_requests_in_flight", "Chats that run now.", figures.inFlight);
  gauge("proxy_permits_waiting", "Chats that wait for a permit of their user.", figures.permitsWaiting);
  gauge("journal_unsynced_records", "Charges that a power loss now would lose.", figures.journalUnsynced);
  gauge("behaviour_log_queued", "Behaviour log lines that wait to be written.", () => figures.behaviourLog().queued);

  registerCounter(registry, "behaviour_log_dropped_total", "Behaviour log lines lost.", ["reason"], () =>
    Object.entries(figures.behaviourLog().dropped).map(([reason, count]) => ({ labels: { reason }, count })),
  );
  registerCounter(registry, "events_sink_errors_total", "Events that a sink failed on.", ["sink"], () =>
    Array.from(figures.sinkErrors(), ([sink, count]) => ({ labels: { sink }, count })),
  );
  registerCounter(registry, "log_lines_dropped_total", "Lines of the proxy's own log lost.", [], () => [
    { labels: {}, count: figures.logLinesDropped() },
  ]);
}

/**
 * Adds a counter that is counted elsewhere, in plain numbers, and handed over at each scrape: counting through
 * prom-client's labels would take several µs a chat.
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
