import type { ApiName } from "./apis.ts";
import type { ReportedError } from "./stream/reported.ts";
import type { UpstreamErrorKind } from "./upstream-error.ts";

/** Everything in which a kind of provider differs from others, for all of its APIs. One file each in kinds/. */
export interface ProviderKind {
  /** As `kind` in config.toml. */
  readonly name: string;
  readonly defaultBaseUrl: string;
  /** The environment variable of its key, if the config names none; null if it needs no key. */
  readonly defaultKeyEnv: string | null;
  /** Whether it may need no key if the config gives it a base URL. */
  readonly mayBeKeyless: boolean;
  /** Models to list while the provider can't be reached. */
  readonly knownModels: readonly string[];
  readonly features: ProviderFeatures;
  /**
   * The path of an API; null if the provider doesn't have it, whatever the model.
   * @param base path of its base URL, without a slash at its end
   * @param model its own name for the model
   */
  pathOf(api: ApiName, base: string, model: string): string | null;
  /** The path of its list of models, below the same base. */
  modelsPath(base: string): string;
  /** The headers that carry the key, with every request. @param secret the key; not called without one */
  authorization(secret: string): Readonly<Record<string, string>>;
  /** Further headers with requests to an API. @param secret the key; "" if there is none */
  headersOf(api: ApiName, secret: string): Readonly<Record<string, string>>;
  /**
   * Classifies an error by this provider's own codes and messages; null if the general rules apply.
   * @param status HTTP status, or the one in the error; 200 if the error came inside a response with a good status
   */
  classify(status: number, error: ReportedError): UpstreamErrorKind | null;
  readonly probe: Probe;
}

/** Optional parts of requests that a provider accepts, or needs. Formats write its requests accordingly. */
export interface ProviderFeatures {
  readonly streamOptions: boolean;
  /** OpenAI's name for the role of a system message in a chat; elsewhere it is `system`. */
  readonly developerRole: boolean;
  /** Whether a chat's limit may be `max_completion_tokens`; others ignore it and know `max_tokens` alone. */
  readonly maxCompletionTokens: boolean;
  /** Whether it stores responses of the Responses API unless `store` is false. */
  readonly keepsResponses: boolean;
  /** Names that it no longer has, of models that didn't think; what an alias puts in their place thinks unless told. */
  readonly namesWithoutThinking: readonly string[];
}

/** What is requested from time to time to see whether an account works. */
interface Probe {
  /** @param base path of its base URL, without a slash at its end */
  pathOf(base: string): string;
  /** Reads the balance in the JSON of a good response; null if there is none. */
  readBalance(body: unknown): Balance | null;
}

/** The balance of an account, as its provider reports it. */
export interface Balance {
  /** Whether it suffices for requests. */
  readonly available: boolean;
  /** Decimal texts, unchanged: nothing is calculated with them. */
  readonly amounts: readonly { readonly currency: string; readonly total: string }[];
}
