import type { Exemplar, Labels, MetricFamily } from "./exposition.ts";

/** Series of one histogram at most; more are counted under `other`. */
const maxSeries = 500;
const other = "other";

export interface Histogram {
  readonly family: MetricFamily;
  /**
   * @param values of the labels, in order; from bounded sets
   * @param traceId of the trace in which it was measured, for the exemplar of its bucket
   */
  observe(values: readonly string[], seconds: number, at: number, traceId: string | undefined): void;
}

interface Series {
  readonly labels: Labels;
  /** By bucket, not added up; the last one is what is above all bounds. */
  readonly counts: Float64Array;
  sum: number;
  /** The latest of each bucket; allocated with the first. */
  exemplars: (Exemplar | undefined)[] | null;
}

/** A histogram whose observations cost a lookup and two additions: prom-client's take several µs a chat. */
export function createHistogram(
  name: string,
  help: string,
  labelNames: readonly string[],
  bounds: readonly number[],
): Histogram {
  const all = new Map<string, Series>();

  function seriesOf(values: readonly string[]): Series {
    const key = values.join("\n");
    const known = all.get(key);
    if (known !== undefined) return known;
    if (all.size >= maxSeries && values.some((value) => value !== other)) return seriesOf(values.map(() => other));
    const labels = Object.fromEntries(labelNames.map((label, at) => [label, values[at] ?? other]));
    const made: Series = { labels, counts: new Float64Array(bounds.length + 1), sum: 0, exemplars: null };
    all.set(key, made);
    return made;
  }

  return {
    observe(values, seconds, at, traceId) {
      const series = seriesOf(values);
      let bucket = 0;
      while (bucket < bounds.length && seconds > (bounds[bucket] ?? Infinity)) bucket++;
      series.counts[bucket] = (series.counts[bucket] ?? 0) + 1;
      series.sum += seconds;
      if (traceId !== undefined) (series.exemplars ??= [])[bucket] = { traceId, value: seconds, at };
    },
    family: {
      name,
      help,
      type: "histogram",
      *samples() {
        for (const { labels, counts, sum, exemplars } of all.values()) {
          let count = 0;
          for (const [bucket, more] of counts.entries()) {
            count += more;
            const le = bucket === bounds.length ? "+Inf" : String(bounds[bucket]);
            yield { name: `${name}_bucket`, labels: { le, ...labels }, count, exemplar: exemplars?.[bucket] };
          }
          yield { name: `${name}_sum`, labels, count: sum };
          yield { name: `${name}_count`, labels, count };
        }
      },
    },
  };
}
