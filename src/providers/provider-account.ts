import type { Socket } from "node:net";
import { type buildConnector, type Dispatcher, Pool } from "undici";
import type { BreakerRule } from "./breaker.ts";
import { createConnector } from "./forward-proxy.ts";
import { ProviderHealth } from "./provider-health.ts";
import { StaleConnectionError } from "./upstream-error.ts";

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

/**
 * Creates an account; nothing is sent yet. Close `dispatcher` when done.
 * @param forwardProxy the URL of an HTTP proxy through which it is reached
 */
export function createProviderAccount(
  origin: string,
  apiKey: string,
  figures: AccountFigures,
  forwardProxy?: string,
): ProviderAccount {
  let { connectMs } = figures;
  let connect = createPausableConnector(connectMs, forwardProxy);
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
      if (next.connectMs !== connectMs) connect = createPausableConnector((connectMs = next.connectMs), forwardProxy);
      health.configure(next.breaker);
    },
  };
}

/**
 * Opens connections on which undici may be paused at any time. A body without a length lasts until its connection
 * closes, and undici's parser asserts, in a callback of the socket, that it is not paused then: the process would end.
 * The parameters are those of createConnector.
 */
function createPausableConnector(timeoutMs: number, forwardProxy: string | undefined): buildConnector.connector {
  const connect = createConnector(timeoutMs, forwardProxy);
  return (options, callback) => {
    connect(options, (...result) => {
      // If the connection fails undici passes only the error, whatever its types say.
      if (result[0] === null) keepEndBack(result[1]);
      callback(...result);
    });
  };
}

/** How the end of a connection is reported by Node, and by undici. */
const ends: ReadonlySet<unknown> = new Set(["ECONNRESET", "EPIPE", "UND_ERR_SOCKET"]);

/**
 * Makes a socket report its end only to a reader that reads past its data, as undici's parser does unless it is paused.
 * Also makes it report a reset as an ordinary error, because undici takes ECONNRESET as a clean end of such a body,
 * whether it is paused or not; and the end of a connection that has been used before, if nothing came since something
 * was last written to it, as a StaleConnectionError.
 */
function keepEndBack(socket: Socket): void {
  const push = socket.push.bind(socket);
  const read = socket.read.bind(socket);
  const write = socket.write.bind(socket) as (...args: readonly unknown[]) => boolean;
  const destroy = socket.destroy.bind(socket);
  let ended = false;
  let wasUsed = false;
  let isWaiting = false;
  socket.write = (...args: readonly unknown[]) => {
    isWaiting = true;
    return write(...args);
  };
  socket.push = (chunk: unknown, encoding?: BufferEncoding) => {
    if (chunk !== null) {
      wasUsed = true;
      isWaiting = false;
      return push(chunk, encoding);
    }
    ended = true;
    // As Node does at an end. A parser that is not paused then reads on.
    socket.emit("readable");
    return false;
  };
  socket.read = (size?: number): unknown => {
    if (ended && size !== 0 && socket.readableLength === 0) {
      ended = false;
      push(null);
    }
    return read(size);
  };
  socket.destroy = (error?: Error) => {
    const code = error !== undefined && "code" in error ? error.code : undefined;
    if (error !== undefined && wasUsed && isWaiting && ends.has(code))
      return destroy(new StaleConnectionError(error.message, { cause: error }));
    return destroy(error !== undefined && code === "ECONNRESET" ? new Error(error.message, { cause: error }) : error);
  };
}
