import type { Dispatcher } from "undici";
import type { ApiName } from "./apis.ts";
import type { ProviderFeatures, ProviderKind } from "./provider-kind.ts";
import type { ProviderHealth } from "./provider-health.ts";

/** The address of one of a provider's APIs, for one model. */
interface Endpoint {
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
  /** From the first attempt of a request on, at whichever provider. */
  readonly total: number;
  /** How long a client may stop reading. */
  readonly stalledReader: number;
  /** Silence after which a client gets a heartbeat. */
  readonly heartbeat: number;
}

/** The timeouts that concern the client. */
export type ReaderTimes = Pick<UpstreamTimeouts, "stalledReader" | "heartbeat">;

/** One LLM account, ready for requests. A provider with several keys is several of these, with one name. */
export interface Provider {
  readonly name: string;
  /** Index of its key among the provider's keys, from 0; the only thing ever shown of a key. */
  readonly keyIndex: number;
  readonly kind: ProviderKind;
  /** Connections to it; pipelining 1, so that no response waits behind another. */
  readonly dispatcher: Dispatcher;
  /** Scheme, host and port. */
  readonly origin: string;
  /** Path of its base URL, without a slash at its end. */
  readonly basePath: string;
  /** Query of its base URL with the question mark, sent with every request; "" if it has none. */
  readonly query: string;
  /** Sent with every request: authorization, content-type, accept. Change with `useKey`. */
  readonly headers: Readonly<Record<string, string>>;
  /** Whether it has an API. */
  offers(api: ApiName): boolean;
  /**
   * Where requests to an API go, with the current key.
   * @param model its own name for the model
   * @throws Error if it doesn't have the API
   */
  endpoint(api: ApiName, model: string): Endpoint;
  /** The current key, kept only to remove it from the provider's messages. "" if it needs none. */
  readonly secret: string;
  /** The previous key, since responses to requests sent with it may still come. "" if there was none. */
  readonly formerSecret: string;
  readonly timeouts: UpstreamTimeouts;
  /** Names and globs of the models it serves. */
  readonly models: readonly string[];
  /** The provider's own name for a model. */
  ownName(model: string): string;
  /** Whether it accepts `stream_options` for a model (by its own name), as far as is known. */
  supportsStreamOptions(model: string): boolean;
  /** Called when a request succeeded without `stream_options` after a rejection. Remembered until the process ends. */
  disableStreamOptions(model: string): void;
  readonly priority: number;
  readonly weight: number;
  readonly health: ProviderHealth;
  /** Uses another key from the next request on. Connections and requests in progress continue. */
  useKey(key: string): void;
  /**
   * Whether a key that the provider rejected is no longer current, or its file has another by now: then the rejection
   * means nothing, and the request may be sent again.
   */
  hasReplaced(key: string): boolean;
}

/** A request as it can be sent to any provider. */
export interface UpstreamRequest {
  readonly api: ApiName;
  /** Whether the response is collected into one JSON; if not, its events are passed on. */
  readonly collects: boolean;
  /** Number of completions requested, which is the most choices that may come. */
  readonly choices: number;
  /** Whether `stream_options` only requests usage, so that it can be left out. Searches the whole body. */
  canDropStreamOptions(): boolean;
  /**
   * The body for a provider with this name for the model and these features.
   * @param asWhole whether one JSON is requested instead of a stream; default false
   */
  bodyFor(upstreamModel: string, features: ProviderFeatures, asWhole?: boolean): Buffer;
}

/** The form of a request, which changes where a provider refuses it for its form. */
export interface RequestForm {
  /** Whether `stream_options` may be sent. */
  readonly streamOptions: boolean;
  /** Whether one JSON is requested instead of a stream. */
  readonly asWhole: boolean;
}

export const usualForm: RequestForm = { streamOptions: true, asWhole: false };
