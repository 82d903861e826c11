import { createGlobMap } from "../lib/globs.ts";
import { providerKinds } from "./kinds/kinds.ts";
import { createProviderAccount, type ProviderAccount } from "./provider-account.ts";
import type { BreakerRule } from "./breaker.ts";
import { type ApiName, apiNames, apis } from "./apis.ts";
import type { ProviderKind } from "./provider-kind.ts";
import type { Provider, UpstreamTimeouts } from "./provider.ts";

export interface ProviderOptions {
  readonly name: string;
  readonly keyIndex: number;
  readonly kind: keyof typeof providerKinds;
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
  /** Connections, health and key of a provider that was in use before. Default: new ones. */
  readonly account?: ProviderAccount;
}

/** Most models remembered for rejecting `stream_options`; a provider has fewer. */
const maxRefused = 1000;

/** One provider with its connections. Close `dispatcher` when done. Its figures never change: a reload makes another. */
export function createProvider(options: ProviderOptions): Provider {
  const kind = providerKinds[options.kind];
  const url = new URL(options.baseUrl ?? kind.defaultBaseUrl);
  const { timeouts, breaker } = options;
  const account =
    options.account ?? createProviderAccount(url.origin, options.apiKey, { connectMs: timeouts.connect, breaker });
  const { dispatcher, health, withoutStreamOptions } = account;
  const ownNames = createGlobMap(options.modelMap);
  let sent = sentWith(account.secret, kind);
  const basePath = basePathOf(url);
  const offered = new Set(apiNames.filter((api) => kind.pathOf(api, basePath, "") !== null));

  function current(): typeof sent {
    if (sent.secret !== account.secret) sent = sentWith(account.secret, kind);
    return sent;
  }

  return {
    name: options.name,
    keyIndex: options.keyIndex,
    kind,
    dispatcher,
    origin: url.origin,
    basePath,
    query: url.search,
    get headers() {
      return current().headers;
    },
    offers: (api) => offered.has(api),
    endpoint(api, model) {
      const path = kind.pathOf(api, basePath, model);
      if (path === null) throw new Error(`${options.name} has no API for ${api}`);
      const { headers, headersOf } = current();
      return { path: path + url.search, headers: headersOf[api] ?? headers };
    },
    get secret() {
      return account.secret;
    },
    get formerSecret() {
      return account.formerSecret;
    },
    timeouts,
    models: [...options.models, ...Object.keys(options.modelMap)],
    ownName: (model) => ownNames(model) ?? model,
    supportsStreamOptions: (model) =>
      kind.features.streamOptions && options.streamOptions !== false && !withoutStreamOptions.has(model),
    disableStreamOptions(model) {
      if (withoutStreamOptions.size < maxRefused) withoutStreamOptions.add(model);
    },
    priority: options.priority,
    weight: options.weight,
    health,
    useKey(key) {
      account.useKey(key);
    },
    hasReplaced(key) {
      if (key === account.secret) options.rereadKey?.();
      return key !== account.secret;
    },
  };
}

function basePathOf({ pathname }: URL): string {
  return pathname.replace(/(?<!\/)\/+$/, "");
}

/** Everything that is sent with a key, built once for many requests. */
interface SentWithKey {
  readonly secret: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly headersOf: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

function sentWith(secret: string, kind: ProviderKind): SentWithKey {
  const headers = {
    "content-type": "application/json",
    accept: "text/event-stream",
    "accept-encoding": "identity",
    "user-agent": "deepseek-proxy",
    ...(secret === "" ? {} : kind.authorization(secret)),
  };
  const headersOf = (api: ApiName) => ({
    ...headers,
    ...(apis[api].stream === null ? { accept: "application/json" } : {}),
    ...kind.headersOf(api, secret),
  });
  return { secret, headers, headersOf: Object.fromEntries(apiNames.map((api) => [api, headersOf(api)])) };
}
