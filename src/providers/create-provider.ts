import { Pool } from "undici";
import { createGlobMap } from "../lib/glob-map.ts";
import { createConnector } from "./connector.ts";
import { providerKinds } from "./kinds/kinds.ts";
import { ProviderHealth } from "./provider-health.ts";
import type { BreakerRule } from "./breaker.ts";
import type { ApiName, ProviderKind, Endpoint, Provider, UpstreamTimeouts } from "./provider.ts";

export interface ProviderOptions {
  readonly name: string;
  readonly keyIndex: number;
  readonly kind: ProviderKind["kind"];
  /** Absent: the kind's own. */
  readonly baseUrl?: string | undefined;
  /** "" if the provider needs none. */
  readonly apiKey: string;
  readonly models: readonly string[];
  readonly modelMap: Readonly<Record<string, string>>;
  /** Whether `stream_options` are sent; default true. */
  readonly streamOptions?: boolean;
  readonly priority: number;
  readonly weight: number;
  readonly timeouts: UpstreamTimeouts;
  readonly breaker: BreakerRule;
  /** Rereads the key and passes a new value to `useKey`. Default: the key never changes. */
  readonly rereadKey?: () => void;
}

/** Most models remembered for rejecting `stream_options`; a provider has fewer. */
const maxRefused = 1000;

/** One provider with its connections. Close `dispatcher` when done. */
export function createProvider(options: ProviderOptions): Provider {
  const kind = providerKinds[options.kind];
  const url = new URL(options.baseUrl ?? kind.defaultBaseUrl);
  const dispatcher = new Pool(url.origin, {
    pipelining: 1,
    connect: createConnector(options.timeouts.connect),
    // The attempt has its own deadlines: undici's timers know nothing about comments, events or a paused reader.
    headersTimeout: 0,
    bodyTimeout: 0,
    keepAliveTimeout: 30_000,
  });
  const ownNames = createGlobMap(options.modelMap);
  const health = new ProviderHealth(options.breaker);
  let sent = sentWith(options.apiKey, kind, url);
  let formerSecret = "";
  const withoutStreamOptions = new Set<string>();

  function useKey(key: string): void {
    if (key === sent.secret) return;
    formerSecret = sent.secret;
    sent = sentWith(key, kind, url);
    // Failures of the old key say nothing about the new one.
    health.forgetFailures();
  }

  return {
    name: options.name,
    keyIndex: options.keyIndex,
    kind,
    dispatcher,
    origin: url.origin,
    basePath: basePathOf(url),
    query: url.search,
    get headers() {
      return sent.headers;
    },
    get endpoints() {
      return sent.endpoints;
    },
    get secret() {
      return sent.secret;
    },
    get formerSecret() {
      return formerSecret;
    },
    timeouts: options.timeouts,
    models: [...options.models, ...Object.keys(options.modelMap)],
    ownName: (model) => ownNames(model) ?? model,
    supportsStreamOptions: (model) => options.streamOptions !== false && !withoutStreamOptions.has(model),
    disableStreamOptions(model) {
      if (withoutStreamOptions.size < maxRefused) withoutStreamOptions.add(model);
    },
    priority: options.priority,
    weight: options.weight,
    health,
    useKey,
    hasReplaced(key) {
      if (key === sent.secret) options.rereadKey?.();
      return key !== sent.secret;
    },
  };
}

function basePathOf({ pathname }: URL): string {
  return pathname.replace(/(?<!\/)\/+$/, "");
}

/** Everything that is sent with a key, built once for many requests. */
function sentWith(secret: string, kind: ProviderKind, base: URL): Pick<Provider, "headers" | "endpoints" | "secret"> {
  const headers = {
    "content-type": "application/json",
    accept: "text/event-stream",
    "accept-encoding": "identity",
    "user-agent": "deepseek-proxy",
    ...(secret === "" ? {} : { authorization: `Bearer ${secret}` }),
  };
  const endpoint = (api: ApiName, own: Endpoint["headers"] = {}): Endpoint | null => {
    const path = kind.pathOf(api, basePathOf(base));
    return path === null ? null : { path: path + base.search, headers: { ...headers, ...own } };
  };
  return {
    secret,
    headers,
    endpoints: {
      chat: endpoint("chat"),
      beta_chat: endpoint("beta_chat"),
      completions: endpoint("completions"),
      messages: endpoint("messages", {
        "anthropic-version": "2023-06-01",
        // Anthropic's own header; some compatible servers accept only one of the two.
        ...(secret === "" ? {} : { "x-api-key": secret }),
      }),
      embeddings: endpoint("embeddings", { accept: "application/json" }),
    },
  };
}
