/** What a rule may count by: each has a bucket of its own; `global` is one bucket for all. */
export const rateScopes = ["global", "user", "key", "group", "tier", "address", "model", "provider"] as const;

/** What can have a bucket of its own. */
export type RateScope = Exclude<(typeof rateScopes)[number], "global">;

/** What a rule counts; tokens are input and output. */
export const rateMetrics = ["requests", "tokens", "output_tokens"] as const;

export type RateMetric = (typeof rateMetrics)[number];

/** The time in which the units of a rule come back. */
export const ratePeriods = ["second", "minute", "hour"] as const;

export type RatePeriod = (typeof ratePeriods)[number];
