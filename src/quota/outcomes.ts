/** How a chat request that was charged ends, in the order of exports. The comments say what is charged for in the end. */
export const outcomes = [
  /** What the provider has reported. */
  "completed",
  /** What the provider has reported by then, else an estimate of what was relayed. */
  "client_gone",
  /** Nothing: the provider's fault. */
  "upstream_failed",
  /** An estimate of what was relayed. */
  "reader_stalled",
  /** As reader_stalled. */
  "shutdown",
  /** Nothing: refused before anything was sold. */
  "refused",
  /** What was relayed: the quota was used up. */
  "quota_cut",
] as const;

export type Outcome = (typeof outcomes)[number];

/** How an entry of the usage history came about: by a chat, or by a manual change. */
export const usageOutcomes = [...outcomes, "adjust", "reset"] as const;

export type UsageOutcome = (typeof usageOutcomes)[number];

const known: ReadonlySet<string> = new Set(outcomes);

/** Whether a text names an outcome of a chat. */
export function isOutcome(text: string): text is Outcome {
  return known.has(text);
}
