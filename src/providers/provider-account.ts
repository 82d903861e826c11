import { Pool, type Dispatcher } from "undici";
import type { BreakerRule } from "./breaker.ts";
import { createConnector } from "./connector.ts";
import { ProviderHealth } from "./provider-health.ts";

/** The figures of an account that a reload may change. */
export interface AccountFigures {
  /** Timeout for TCP and TLS, in ms. */
  readonly connectMs: number;
  readonly breaker: BreakerRule;
}

/** One key at one origin, and everything that is remembered about it: it lives on while the config is reloaded. */
export interface ProviderAccount {
  readonly dispatcher: Dispatcher;
  readonly health: ProviderHealth;
  /** The key in use; "" if the provider needs none. */
  readonly secret: string;
  /** The previous key, since responses to requests sent with it may still come. "" if there was none. */
  readonly formerSecret: string;
  /** Models, by the provider's own names, for which it rejected `stream_options`. */
  readonly withoutStreamOptions: Set<string>;
  /** Uses another key from the next request on. Connections and requests in progress continue. */
  useKey(key: string): void;
  /** Changes the figures. Connections, circuits and statistics stay. */
  configure(figures: AccountFigures): void;
}

/** Creates an account; nothing is sent yet. Close `dispatcher` when done. */
export function createProviderAccount(origin: string, apiKey: string, figures: AccountFigures): ProviderAccount {
  let { connectMs } = figures;
  let connect = createConnector(connectMs);
  let secret = apiKey;
  let formerSecret = "";
  const health = new ProviderHealth(figures.breaker);
  const dispatcher = new Pool(origin, {
    pipelining: 1,
    connect: (options, callback) => {
      connect(options, callback);
    },
    // The attempt has its own deadlines: undici's timers know nothing about comments, events or a paused reader.
    headersTimeout: 0,
    bodyTimeout: 0,
    keepAliveTimeout: 30_000,
  });
  return {
    dispatcher,
    health,
    get secret() {
      return secret;
    },
    get formerSecret() {
      return formerSecret;
    },
    withoutStreamOptions: new Set(),
    useKey(key) {
      if (key === secret) return;
      formerSecret = secret;
      secret = key;
      // Failures of the old key say nothing about the new one.
      health.forgetFailures();
    },
    configure(next) {
      if (next.connectMs !== connectMs) connect = createConnector((connectMs = next.connectMs));
      health.configure(next.breaker);
    },
  };
}
