import type { Dispatcher } from "undici";
import type { UpstreamErrorKind } from "./upstream-error.ts";
import type { ProviderHealth } from "./provider-health.ts";

/** Tokens as a provider reported them; `output` includes `reasoning`, `input` includes `cached`. */
export interface ReportedUsage {
  readonly input: number;
  readonly cached: number;
  readonly output: number;
  readonly reasoning: number;
}

/** The part of it that some APIs report before the answer. */
export type PromptUsage = Pick<ReportedUsage, "input" | "cached">;

/** An error as a provider reports it. Texts are "" where it says nothing. */
export interface ReportedError {
  /** A number in 400..599 among its fields, which stands for an HTTP status; null where there is none. */
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

/**
 * What providers can be asked, in the shapes of their APIs: OpenAI's chats, those for which DeepSeek has a beta root,
 * OpenAI's text completions, Anthropic's messages, and OpenAI's embeddings.
 */
export type ApiName = "chat" | "beta_chat" | "completions" | "messages" | "embeddings";

/** Where one of a provider's APIs is. */
export interface Endpoint {
  readonly path: string;
  /** Sent with every request: authorization, content-type, accept. */
  readonly headers: Readonly<Record<string, string>>;
}

/** All in ms. */
export interface UpstreamTimeouts {
  readonly connect: number;
  readonly firstByte: number;
  readonly firstEvent: number;
  readonly idle: number;
  /** From the first request of a request on, whoever was asked then. */
  readonly total: number;
  /** How long a client may stop reading. */
  readonly stalledReader: number;
  /** Silence after which a client gets a sign of life. */
  readonly heartbeat: number;
}

/** The times of it that concern the client. */
export type ReaderTimes = Pick<UpstreamTimeouts, "stalledReader" | "heartbeat">;

/** What differs between providers, whichever of their APIs is asked. */
export interface ProviderKind {
  readonly kind: "deepseek" | "zhipu" | "openai" | "simulator";
  readonly defaultBaseUrl: string;
  readonly defaultKeyEnv: string;
  /** What a probe asks for: the balance, where the provider tells it, else the models. */
  readonly probe: "balance" | "models";
  /** Whether it takes messages with the role `developer`. */
  readonly developerRole: boolean;
  /** Models to list where the provider can't be asked. */
  readonly knownModels: readonly string[];
  /**
   * The path of an API; null where the provider doesn't have it.
   * @param base path of its base URL, without a slash at its end
   */
  pathOf(api: ApiName, base: string): string | null;
  /**
   * What an error means by this provider's own codes and words; null where they are those of everybody.
   * @param status HTTP status, or the one that the error names; 200 where there is none but that of a good beginning
   */
  classify(status: number, error: ReportedError): UpstreamErrorKind | null;
}

/** One LLM account, ready to be asked. A provider with several keys is several of these, with one name. */
export interface Provider {
  readonly name: string;
  /** Which of the provider's keys it uses, from 0; all that may ever be said of a key. */
  readonly keyIndex: number;
  readonly kind: ProviderKind;
  /** Connections to it; pipelining 1, so that one answer never waits behind another. */
  readonly dispatcher: Dispatcher;
  /** Scheme, host and port. */
  readonly origin: string;
  /** Path of its base URL, without a slash at its end. */
  readonly basePath: string;
  /** Query of its base URL with the question mark, sent with every request; "" where it has none. */
  readonly query: string;
  /** Sent with every request: authorization, content-type, accept. Others after `useKey`. */
  readonly headers: Readonly<Record<string, string>>;
  /** The APIs that it has; null for the others. Others after `useKey`. */
  readonly endpoints: Readonly<Record<ApiName, Endpoint | null>>;
  /** The key in force, kept only to strike it out of whatever the provider says. "" where it needs none. */
  readonly secret: string;
  /** The key before: answers to what was sent with it may still come. "" where there was none. */
  readonly formerSecret: string;
  readonly timeouts: UpstreamTimeouts;
  /** Names and globs of the models it serves. */
  readonly models: readonly string[];
  /** The provider's own name for a model. */
  ownName(model: string): string;
  /** Whether it takes `stream_options` for a model, by its own name, as far as is known. */
  supportsStreamOptions(model: string): boolean;
  /** It has answered well without `stream_options` after it had refused them. Remembered while the process runs. */
  disableStreamOptions(model: string): void;
  readonly priority: number;
  readonly weight: number;
  readonly health: ProviderHealth;
  /** Sends another key from the next request on. Connections live on, and so does what is under way. */
  useKey(key: string): void;
  /**
   * Whether a key that the provider has refused is no longer the one in force, or its file has another by now: then
   * the refusal means nothing, and the request may be sent again.
   */
  hasReplaced(key: string): boolean;
}

/** What a provider takes of what clients may send. */
export interface ProviderFeatures {
  readonly streamOptions: boolean;
  /** OpenAI's name for the role of a system message; elsewhere it is `system`. */
  readonly developerRole: boolean;
}

/** What to ask, in the words of each provider. */
export interface UpstreamRequest {
  readonly api: ApiName;
  /** Whether the answer becomes one JSON; else its events are passed on. */
  readonly collects: boolean;
  /** Number of answers asked for, of which so many choices may come. */
  readonly choices: number;
  /** Whether `stream_options` is only there because usage is wanted, so that it can be left out. */
  readonly canDropStreamOptions: boolean;
  /** The body for a provider that knows the model under this name, and takes no more than this. */
  bodyFor(upstreamModel: string, features: ProviderFeatures): Buffer;
}
