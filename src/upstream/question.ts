import type { ApiName } from "./providers/provider.ts";

/** What a provider takes of what clients may send. */
export interface Takes {
  readonly streamOptions: boolean;
  /** OpenAI's name for the role of a system message; elsewhere it is `system`. */
  readonly developerRole: boolean;
}

/** What to ask, in the words of each provider. */
export interface Question {
  readonly api: ApiName;
  /** Whether the answer becomes one JSON; else its events are passed on. */
  readonly collects: boolean;
  /** Number of answers asked for, of which so many choices may come. */
  readonly choices: number;
  /** Whether `stream_options` is only there because usage is wanted, so that it can be left out. */
  readonly sparesStreamOptions: boolean;
  /** The body for a provider that knows the model under this name, and takes no more than this. */
  bodyFor(upstreamModel: string, takes: Takes): Buffer;
}
