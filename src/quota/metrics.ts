import { formatNano, parseNano, parseSignedNano } from "../lib/money.ts";

/** How one metric is read, stored and shown. Amounts are safe integers: a count, or nano-units of a currency. */
interface MetricRow {
  /** Whether its limits have a currency, and its amounts are money. */
  readonly hasCurrency: boolean;
  /** Whether it grows while a response is streamed: then a response can be cut off at its limits. */
  readonly growsMidstream: boolean;
  /** The version of the ledger's records that has its column: 1, or for a new metric the next version. */
  readonly since: number;
  /** The largest amount of a limit, as people write it. */
  readonly most: number;
  /** For people: what is expected of an amount. */
  readonly expected: string;
  /** Reads an amount as people write it. Throws RangeError. */
  readonly parse: (amount: number | string) => number;
  /** The same, also below 0. */
  readonly parseSigned: (amount: number | string) => number;
  /** The exact amount, for messages, logs and error details. */
  readonly format: (amount: number) => number | string;
  /** The amount as a number, for JSON and headers; money is in units of its currency. */
  readonly toNumber: (amount: number) => number;
}

const count = {
  hasCurrency: false,
  since: 1,
  most: Number.MAX_SAFE_INTEGER,
  expected: "a whole number",
  parse: (amount: number | string) => parseCount(amount, 0),
  parseSigned: (amount: number | string) => parseCount(amount, -Number.MAX_SAFE_INTEGER),
  format: (amount: number) => amount,
  toNumber: (amount: number) => amount,
} as const;

const mostMoney = Math.floor(Number.MAX_SAFE_INTEGER / 1e9);

const money = {
  hasCurrency: true,
  since: 1,
  most: mostMoney,
  expected: `an amount of at most ${mostMoney} with at most 9 decimal places`,
  parse: parseNano,
  parseSigned: parseSignedNano,
  format: formatNano,
  toNumber: (nano: number) => nano / 1e9,
} as const;

/** What a limit can count: each metric once. The order is that of lists, of the journal's columns, and of exports. */
export const metrics = {
  requests: { ...count, growsMidstream: false },
  tokens: { ...count, growsMidstream: true },
  cost: { ...money, growsMidstream: true },
} as const satisfies Readonly<Record<string, MetricRow>>;

/** What a limit counts. */
export type Metric = keyof typeof metrics;

/** A metric that is money, in a currency. */
type MoneyMetric = { [M in Metric]: (typeof metrics)[M]["hasCurrency"] extends true ? M : never }[Metric];
/** A metric that is a plain count. */
export type CountMetric = Exclude<Metric, MoneyMetric>;
/** A metric at whose limits a response can be cut off. */
export type CuttingMetric = { [M in Metric]: (typeof metrics)[M]["growsMidstream"] extends true ? M : never }[Metric];

export const metricNames = Object.keys(metrics) as [Metric, ...Metric[]];
export const countMetrics = metricNames.filter((name): name is CountMetric => !metrics[name].hasCurrency);
export const cuttingMetrics = metricNames.filter((name) => metrics[name].growsMidstream) as CuttingMetric[];

/** The version of the ledger's records that has a column for a metric. */
export function sinceVersion(metric: Metric): number {
  return metrics[metric].since;
}

/** An object with a value for each of some metrics. */
export function forEachMetric<M extends Metric, T>(names: readonly M[], valueOf: (metric: M) => T): Record<M, T> {
  return Object.fromEntries(names.map((name) => [name, valueOf(name)])) as Record<M, T>;
}

/** What identifies a limit among those of one user or key. */
export interface Counted {
  readonly metric: Metric;
  readonly per: string;
  readonly currency?: string | undefined;
}

/** A limit for people, and as a key: `requests per month`, `cost per day CNY`. */
export function limitName({ metric, per, currency = "" }: Counted): string {
  return `${metric} per ${per} ${currency}`.trimEnd();
}

function parseCount(amount: number | string, least: number): number {
  // Number alone would take "0x10" and " 1" as well, and round what has more digits than it can keep.
  const number = typeof amount === "number" || /^-?\d+(?:e\+?\d{1,2})?$/i.test(amount) ? Number(amount) : NaN;
  if (Number.isSafeInteger(number) && number >= least) return number;
  throw new RangeError(`not a whole number: ${amount}`);
}
