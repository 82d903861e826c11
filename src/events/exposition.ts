/** How metrics are written for Prometheus, as plain text or by OpenMetrics, which alone has exemplars. */
export type ExpositionFormat = "text" | "openmetrics";

export type Labels = Readonly<Record<string, string>>;

/** A value and its labels. */
export interface Tally {
  readonly labels: Labels;
  readonly count: number;
}

/** One line. */
interface Sample extends Tally {
  /** The metric's name and a suffix such as `_bucket`. */
  readonly name: string;
  readonly exemplar?: Exemplar | undefined;
}

/** A measured value, and the trace in which it was measured. */
export interface Exemplar {
  readonly traceId: string;
  readonly value: number;
  /** ms since the epoch. */
  readonly at: number;
}

/** A metric. Its values are read at a scrape, so that it costs nothing while requests run. */
export interface MetricFamily {
  /** Of a counter it ends in `_total`. */
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge" | "histogram" | "summary";
  readonly samples: () => Iterable<Sample>;
}

export const contentTypes: Readonly<Record<ExpositionFormat, string>> = {
  text: "text/plain; version=0.0.4; charset=utf-8",
  openmetrics: "application/openmetrics-text; version=1.0.0; charset=utf-8",
};

/** What a scraper wants by its Accept header: OpenMetrics only if it names it. */
export function formatFor(accept: string | undefined): ExpositionFormat {
  return accept?.includes("application/openmetrics-text") === true ? "openmetrics" : "text";
}

/** A counter or gauge whose values are kept elsewhere, in plain numbers. */
export function simpleFamily(
  type: "counter" | "gauge",
  name: string,
  help: string,
  read: () => Iterable<Tally>,
): MetricFamily {
  return {
    name,
    help,
    type,
    *samples() {
      for (const { labels, count } of read()) yield { name, labels, count };
    },
  };
}

/** Writes all metrics. A family without samples is named all the same. */
export function writeMetrics(families: Iterable<MetricFamily>, format: ExpositionFormat): string {
  let text = "";
  for (const { name, help, type, samples } of families) {
    // OpenMetrics names a counter without its suffix.
    const title = format === "openmetrics" && type === "counter" ? name.replace(/_total$/, "") : name;
    text += `# HELP ${title} ${escapeText(help)}\n# TYPE ${title} ${type}\n`;
    for (const sample of samples()) {
      text += `${sample.name}${labelsOf(sample.labels)} ${valueOf(sample.count)}`;
      const { exemplar } = sample;
      if (exemplar !== undefined && format === "openmetrics")
        text += ` # {trace_id="${exemplar.traceId}"} ${valueOf(exemplar.value)} ${(exemplar.at / 1000).toFixed(3)}`;
      text += "\n";
    }
  }
  return format === "openmetrics" ? `${text}# EOF\n` : text;
}

function labelsOf(labels: Labels): string {
  let text = "";
  for (const name in labels) {
    const value = labels[name] ?? "";
    // Nearly no value needs escaping, and there are thousands.
    const shown = /["\\\n]/.test(value) ? escapeText(value).replaceAll('"', '\\"') : value;
    text += `${text === "" ? "{" : ","}${name}="${shown}"`;
  }
  return text === "" ? "" : `${text}}`;
}

function escapeText(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}

function valueOf(value: number): string {
  if (value === Infinity) return "+Inf";
  return value === -Infinity ? "-Inf" : String(value);
}
