import type { Dispatcher } from "undici";
import type { FaultKind } from "./faults.ts";

/** Tokens as a provider reported them; `output` includes `reasoning`, `input` includes `cached`. */
export interface ReportedUsage {
  readonly input: number;
  readonly cached: number;
  readonly output: number;
  readonly reasoning: number;
}

/** All in ms. */
export interface UpstreamTimeouts {
  readonly connect: number;
  readonly firstByte: number;
  readonly firstEvent: number;
  readonly idle: number;
  readonly total: number;
}

/** What differs between the APIs that speak OpenAI's chat format. */
export interface Dialect {
  readonly kind: "deepseek" | "zhipu" | "openai";
  readonly defaultBaseUrl: string;
  readonly defaultKeyEnv: string;
  /** Models to list where the provider can't be asked. */
  readonly knownModels: readonly string[];
  /**
   * What an error answer means.
   * @param status HTTP status; 200 where the error came as an event of the stream
   * @param code `error.code` or `error.type` as text, "" where there is none
   */
  classify(status: number, code: string): FaultKind;
}

/** One LLM account, ready to be asked. */
export interface Provider {
  readonly name: string;
  readonly dialect: Dialect;
  /** Connections to it; pipelining 1, so that one answer never waits behind another. */
  readonly dispatcher: Dispatcher;
  /** Scheme, host and port. */
  readonly origin: string;
  /** Path before `/chat/completions`, without a slash at its end. */
  readonly basePath: string;
  /** Sent with every request: authorization, content-type, accept. */
  readonly headers: Readonly<Record<string, string>>;
  /** The key, kept only to strike it out of whatever the provider says. "" where it needs none. */
  readonly secret: string;
  readonly timeouts: UpstreamTimeouts;
  /** Names and globs of the models it serves. */
  readonly models: readonly string[];
  readonly priority: number;
  readonly weight: number;
}
