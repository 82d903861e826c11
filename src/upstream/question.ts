import type { ApiName } from "./providers/provider.ts";

/** What to ask, in the words of each provider. */
export interface Question {
  readonly api: ApiName;
  /** Whether the answer becomes one JSON; else its events are passed on. */
  readonly collects: boolean;
  /** The body for a provider that knows the model under this name. */
  bodyFor(upstreamModel: string): Buffer;
}
