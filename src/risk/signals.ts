/* What is looked at in a user's behaviour: a closed set, each signal once. */

/** A signal: what is measured, and from which value on it is suspicious. */
interface Signal {
  /** In the config's description and in docs/trust.md. */
  readonly title: string;
  /** The value in words. */
  readonly say: (value: number) => string;
  /** Points at full strength, out of 100. */
  readonly points: number;
  /** The value up to which it gives no points. */
  readonly from: number;
  /** The value from which on it gives all points; in between they grow evenly. */
  readonly to: number;
}

const percent = (value: number): string => `${Math.round(value * 100)}%`;
const whole = (value: number): string => String(Math.round(value));
const times = (value: number): string => `${Math.round(value * 10) / 10} times`;

/**
 * All signals. Counts and shares are of about the last day: they halve every 24 hours. Failed logins are none of them:
 * anybody could make them against another's name.
 */
export const signals = {
  failures: {
    title: "share of the requests that were refused as invalid, by the proxy or by a provider",
    say: (value) => `${percent(value)} of the requests were invalid`,
    points: 55,
    from: 0.4,
    to: 0.9,
  },
  refusals: {
    title: "share of the requests that a limit or a quota refused",
    say: (value) => `${percent(value)} of the requests were over a limit`,
    points: 55,
    from: 0.4,
    to: 0.8,
  },
  abandoned: {
    title: "share of the requests whose client left before the first event",
    say: (value) => `in ${percent(value)} of the requests the client left before the first event`,
    points: 60,
    from: 0.2,
    to: 0.6,
  },
  bursts: {
    title: "most requests in one minute",
    say: (value) => `${whole(value)} requests in a minute`,
    points: 20,
    from: 60,
    to: 300,
  },
  addresses: {
    title: "networks (/24, in IPv6 /48) in a day",
    say: (value) => `${whole(value)} networks in a day`,
    points: 60,
    from: 4,
    to: 12,
  },
  clients: {
    title: "client programs in a day, by User-Agent",
    say: (value) => `${whole(value)} client programs in a day`,
    points: 15,
    from: 4,
    to: 10,
  },
  odd_hours: {
    title: "share of the day's requests at hours at which the user was hardly ever active before",
    say: (value) => `${percent(value)} of today's requests at unusual hours`,
    points: 30,
    from: 0.4,
    to: 0.9,
  },
  spend: {
    title: "today's tokens against the mean of the user's active days",
    say: (value) => `${times(value)} the tokens of a usual day`,
    points: 40,
    from: 4,
    to: 20,
  },
  stolen_sessions: {
    title: "refresh tokens that were used twice",
    say: (value) => `${whole(value)} refresh tokens used twice`,
    points: 30,
    from: 0,
    to: 1,
  },
} as const satisfies Readonly<Record<string, Signal>>;

export type SignalName = keyof typeof signals;
export const signalNames = Object.keys(signals) as readonly SignalName[];
