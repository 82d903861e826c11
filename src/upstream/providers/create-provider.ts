import { Pool } from "undici";
import { createGlobMap } from "../../lib/glob-map.ts";
import { dialects } from "./dialects.ts";
import { ProviderHealth } from "./provider-health.ts";
import type { BreakerRule } from "./breaker.ts";
import type { ApiName, Dialect, Endpoint, Provider, UpstreamTimeouts } from "./provider.ts";

export interface ProviderOptions {
  readonly name: string;
  readonly keyIndex: number;
  readonly kind: Dialect["kind"];
  /** Absent: the dialect's own. */
  readonly baseUrl?: string | undefined;
  /** "" where the provider needs none. */
  readonly apiKey: string;
  readonly models: readonly string[];
  readonly modelMap: Readonly<Record<string, string>>;
  readonly priority: number;
  readonly weight: number;
  readonly timeouts: UpstreamTimeouts;
  readonly breaker: BreakerRule;
}

/** One provider with its connections. Close `dispatcher` when done. */
export function createProvider(options: ProviderOptions): Provider {
  const dialect = dialects[options.kind];
  const url = new URL(options.baseUrl ?? dialect.defaultBaseUrl);
  const dispatcher = new Pool(url.origin, {
    pipelining: 1,
    connect: { timeout: options.timeouts.connect },
    // The exchange keeps its own time: undici's timers know nothing of comments, events or a paused reader.
    headersTimeout: 0,
    bodyTimeout: 0,
    keepAliveTimeout: 30_000,
  });
  const basePath = url.pathname.replace(/\/+$/, "");
  const headers = {
    "content-type": "application/json",
    accept: "text/event-stream",
    "accept-encoding": "identity",
    "user-agent": "deepseek-proxy",
    ...(options.apiKey === "" ? {} : { authorization: `Bearer ${options.apiKey}` }),
  };
  const endpoint = (api: ApiName, own: Endpoint["headers"] = {}): Endpoint | null => {
    const path = dialect.pathOf(api, basePath);
    return path === null ? null : { path, headers: { ...headers, ...own } };
  };
  const ownNames = createGlobMap(options.modelMap);
  return {
    name: options.name,
    keyIndex: options.keyIndex,
    dialect,
    dispatcher,
    origin: url.origin,
    basePath,
    headers,
    endpoints: {
      chat: endpoint("chat"),
      beta_chat: endpoint("beta_chat"),
      completions: endpoint("completions"),
      messages: endpoint("messages", {
        "anthropic-version": "2023-06-01",
        // Anthropic's own way; some servers in its shape know only one of the two.
        ...(options.apiKey === "" ? {} : { "x-api-key": options.apiKey }),
      }),
      embeddings: endpoint("embeddings", { accept: "application/json" }),
    },
    secret: options.apiKey,
    timeouts: options.timeouts,
    models: [...options.models, ...Object.keys(options.modelMap)],
    ownName: (model) => ownNames(model) ?? model,
    priority: options.priority,
    weight: options.weight,
    health: new ProviderHealth(options.breaker),
  };
}
