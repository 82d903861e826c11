import { createCluster, createSentinel, ErrorReply, RedisClient } from "@redis/client";
import type { RedisAddress, RedisTarget } from "./redis-url.ts";
import type { RedisReply } from "./redis.ts";

/** The connections to one Redis: a server, a primary behind sentinels, or the primaries of a cluster. */
export interface RedisConnection {
  /** Sends a command to the server of a key. Rejects with ErrorReply, or where the connection is lost. Never repeats. */
  send(key: string, command: readonly string[]): Promise<RedisReply>;
  /** Sends a command to every primary; an error is in its place. */
  onEveryServer(command: readonly string[]): Promise<readonly (RedisReply | Error)[]>;
  /** From now on changes of keys that begin so are reported. */
  track(prefixes: readonly string[]): void;
  isReady(): boolean;
  close(): void;
}

export interface ConnectionListeners {
  readonly onError: (error: unknown) => void;
  /** A key that has changed; null: changes may have been missed. */
  readonly onInvalidate: (key: string | null) => void;
}

const connectTimeoutMs = 1000;
/** A connection that has been silent for so long is dead: pings make a live one speak. Together less than 2 s. */
const silentMs = 1400;
const pingMs = 500;
/** How long the first connection is tried: whoever starts both at once may start Redis last. */
const startMs = 5000;
/** How often the primaries are compared with those whose changes are tracked. */
const topologyMs = 1000;

/** Connects. Rejects if that fails within 5 s, and at once if Redis refuses the login. */
export async function connectRedis(target: RedisTarget, listeners: ConnectionListeners): Promise<RedisConnection> {
  const startedAt = performance.now();
  let isOpen = false;
  const { username, password, database, tls } = target;
  const withoutLogin = {
    RESP: 3 as const,
    // What can't be sent now fails now: the caller decides whether it is repeated.
    disableOfflineQueue: true,
    pingInterval: pingMs,
    socket: {
      connectTimeout: connectTimeoutMs,
      socketTimeout: silentMs,
      noDelay: true,
      reconnectStrategy(tries: number, cause: Error): number | Error {
        const isRefused = cause instanceof ErrorReply;
        if (!isOpen && (isRefused || performance.now() - startedAt > startMs)) return cause;
        return Math.min(1000, 25 * 2 ** Math.min(tries, 6)) + Math.random() * 25;
      },
      ...(tls ? { tls: true as const } : {}),
    },
  };
  const options = {
    ...withoutLogin,
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
  };
  const [first] = target.addresses;
  const at = ({ host, port }: RedisAddress) => ({ ...options, socket: { ...options.socket, host, port } });
  // An AbortSignal for each command costs four times the CPU; call-deadlines.ts bounds them all.
  const commandOptions = { timeout: 0 };

  let commands: Commands;
  if (target.kind === "single") commands = openSingle({ ...at(first), database, commandOptions }, first);
  else if (target.kind === "sentinel") {
    commands = openSentinel({
      name: target.primary,
      sentinelRootNodes: [...target.addresses],
      nodeClientOptions: { ...options, database },
      // The login is that of the servers; sentinels rarely have one.
      sentinelClientOptions: withoutLogin,
      scanInterval: topologyMs,
      commandOptions,
    });
  } else {
    commands = openCluster({ rootNodes: target.addresses.map(at), defaults: options, commandOptions });
  }
  commands.onError(listeners.onError);
  try {
    await commands.connect();
  } catch (error) {
    commands.close();
    throw error;
  }
  isOpen = true;
  const changes = trackChanges(
    (address) => ({ ...at(address), database }),
    () => commands.primaries(),
    listeners,
  );
  return {
    ...commands,
    track: (prefixes) => {
      changes.track(prefixes);
    },
    close() {
      changes.close();
      commands.close();
    },
  };
}

/** What the three kinds of client have in common. */
interface Commands extends Pick<RedisConnection, "send" | "onEveryServer" | "isReady" | "close"> {
  connect(): Promise<unknown>;
  onError(listener: (error: unknown) => void): void;
  primaries(): readonly RedisAddress[];
}

/** Made once: for each set of options the library builds a class of all of Redis's commands, and blocks while it does. */
const createClient = RedisClient.factory();
type Client = ReturnType<typeof createClient>;

function openSingle(options: Parameters<typeof createClient>[0], address: RedisAddress): Commands {
  const client = createClient(options);
  const send = (command: readonly string[]) => client.sendCommand<RedisReply>(command);
  return {
    connect: () => client.connect(),
    onError: (listener) => void client.on("error", listener),
    send: (_key, command) => send(command),
    onEveryServer: async (command) => [await orError(send(command))],
    isReady: () => client.isReady,
    primaries: () => [address],
    close() {
      if (client.isOpen) client.destroy();
    },
  };
}

function openSentinel(options: Parameters<typeof createSentinel>[0]): Commands {
  const sentinel = createSentinel(options);
  const send = (command: readonly string[]) => sentinel.sendCommand<RedisReply>(false, [...command]);
  return {
    connect: () => sentinel.connect(),
    onError: (listener) => void sentinel.on("error", listener),
    send: (_key, command) => send(command),
    onEveryServer: async (command) => [await orError(send(command))],
    isReady: () => sentinel.isReady,
    primaries() {
      const node = sentinel.getMasterNode();
      return node === undefined ? [] : [node];
    },
    close() {
      if (sentinel.isOpen) void Promise.resolve(sentinel.destroy()).catch(() => undefined);
    },
  };
}

function openCluster(options: Parameters<typeof createCluster>[0]): Commands {
  const cluster = createCluster(options);
  return {
    connect: () => cluster.connect(),
    onError: (listener) => void cluster.on("error", listener).on("node-error", listener),
    send: (key, command) => cluster.sendCommand<RedisReply>(key, false, [...command]),
    onEveryServer: (command) =>
      Promise.all(
        cluster.masters.map(async (node) => {
          return orError(cluster.nodeClient(node).then((client) => client.sendCommand<RedisReply>(command)));
        }),
      ),
    isReady: () => cluster.isOpen && cluster.masters.every(({ client }) => client?.isReady === true),
    primaries: () => cluster.masters.map(({ host, port }) => ({ host, port })),
    close() {
      if (cluster.isOpen) cluster.destroy();
    },
  };
}

/** Keeps one connection to each primary that reports changes: client tracking in broadcast mode. */
function trackChanges(
  optionsOf: (address: RedisAddress) => Parameters<typeof createClient>[0],
  primaries: () => readonly RedisAddress[],
  { onError, onInvalidate }: ConnectionListeners,
) {
  const clients = new Map<string, Client>();
  const tracked: string[] = [];
  const checking = setInterval(check, topologyMs).unref();

  /** From scratch: the client library has begun to track what this connection reads. */
  function start(client: Client): void {
    const names = tracked.flatMap((prefix) => ["PREFIX", prefix]);
    client.sendCommand(["CLIENT", "TRACKING", "OFF"]).catch(onError);
    client.sendCommand(["CLIENT", "TRACKING", "ON", "BCAST", ...names]).then(() => {
      // What changed while nothing was reported is not known.
      onInvalidate(null);
    }, onError);
  }

  function open(address: RedisAddress): Client {
    const client = createClient({ ...optionsOf(address), emitInvalidate: true });
    client.on("error", (error: unknown) => {
      onError(error);
      onInvalidate(null);
    });
    client.on("invalidate", (key: { toString(): string } | null) => {
      onInvalidate(key === null ? null : key.toString());
    });
    client.on("ready", () => {
      start(client);
    });
    client.connect().catch(onError);
    return client;
  }

  function check(): void {
    if (tracked.length === 0) return;
    const now = new Map(primaries().map((address) => [`${address.host}:${address.port}`, address]));
    for (const [name, client] of clients) {
      if (now.has(name)) continue;
      clients.delete(name);
      if (client.isOpen) client.destroy();
      onInvalidate(null);
    }
    for (const [name, address] of now) if (!clients.has(name)) clients.set(name, open(address));
  }

  return {
    track(prefixes: readonly string[]): void {
      tracked.push(...prefixes);
      for (const client of clients.values()) if (client.isReady) start(client);
      check();
    },
    close(): void {
      clearInterval(checking);
      for (const client of clients.values()) if (client.isOpen) client.destroy();
      clients.clear();
    },
  };
}

async function orError<T>(answer: Promise<T>): Promise<T | Error> {
  try {
    return await answer;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}
