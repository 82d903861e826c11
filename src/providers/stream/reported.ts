/** Tokens as a provider reported them; `output` includes `reasoning`, `input` includes `cached`. */
export interface ReportedUsage {
  readonly input: number;
  readonly cached: number;
  readonly output: number;
  readonly reasoning: number;
}

/** The part that some APIs report before the output. */
export type PromptUsage = Pick<ReportedUsage, "input" | "cached">;

/** An error as a provider reports it. Missing texts are "". */
export interface ReportedError {
  /** A number in 400..599 among its fields, taken for an HTTP status; null if there is none. */
  readonly status: number | null;
  /** Its `code`, as text. */
  readonly code: string;
  readonly type: string;
  readonly message: string;
  /** The field of the request that it is about. */
  readonly param: string;
  /** Its other fields. */
  readonly other: Readonly<Record<string, unknown>>;
}
