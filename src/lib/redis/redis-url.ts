/** One server's address. */
export interface RedisAddress {
  readonly host: string;
  readonly port: number;
}

/** How Redis is reached, as REDIS_URL says it. */
export interface RedisTarget {
  readonly kind: "single" | "sentinel" | "cluster";
  /** One server, some of the sentinels, or some nodes of the cluster. */
  readonly addresses: readonly [RedisAddress, ...RedisAddress[]];
  /** The name by which the sentinels know the primary; "" unless `kind` is sentinel. */
  readonly primary: string;
  readonly username: string | undefined;
  readonly password: string | undefined;
  readonly tls: boolean;
  /** 0 in a cluster. */
  readonly database: number;
}

/** What REDIS_URL may look like, for messages. */
export const redisUrlForms =
  "redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], rediss:// for TLS, redis+sentinel://HOST:PORT,HOST:PORT/PRIMARY[/DATABASE], " +
  "or redis+cluster://HOST:PORT,HOST:PORT";

const schemes: Readonly<Record<string, readonly [RedisTarget["kind"], boolean]>> = {
  redis: ["single", false],
  rediss: ["single", true],
  "redis+sentinel": ["sentinel", false],
  "rediss+sentinel": ["sentinel", true],
  "redis+cluster": ["cluster", false],
  "rediss+cluster": ["cluster", true],
};
const ports = { single: 6379, sentinel: 26_379, cluster: 6379 } as const;
const maxLength = 4096;

/** Parses REDIS_URL. Throws RangeError with a message that contains no password. */
export function parseRedisUrl(url: string): RedisTarget {
  const [scheme, rest] = splitOnce(url, "://");
  const [kind, tls] = Object.hasOwn(schemes, scheme) ? (schemes[scheme] ?? []) : [];
  if (kind === undefined || tls === undefined || rest === undefined || url.length > maxLength)
    throw new RangeError(`expected ${redisUrlForms}`);
  const [authority, path = ""] = splitOnce(rest, "/");
  const at = authority.lastIndexOf("@");
  const [username = "", password] = at < 0 ? [] : splitOnce(authority.slice(0, at), ":");
  const [first, ...others] = authority
    .slice(at + 1)
    .split(",")
    .map((address) => parseAddress(address, ports[kind]));
  if (first === undefined) throw new RangeError("expected a host");
  if (kind === "single" && others.length > 0)
    throw new RangeError(
      `expected one host with ${scheme}://; several belong to redis+sentinel:// or redis+cluster://`,
    );
  const parts = path.split("/");
  const primary = kind === "sentinel" ? (parts.shift() ?? "") : "";
  if (kind === "sentinel" && primary === "")
    throw new RangeError(
      "expected the primary's name behind the sentinels, as in redis+sentinel://HOST:26379/mymaster",
    );
  const database = parseDatabase(parts.join("/"));
  if (kind === "cluster" && database !== 0) throw new RangeError("expected no database: a cluster has only 0");
  return {
    kind,
    addresses: [first, ...others],
    primary,
    username: decoded(username, "user") || undefined,
    password: password === undefined ? undefined : decoded(password, "password") || undefined,
    tls,
    database,
  };
}

/** Where it is, for messages and logs: without user and password. */
export function describeTarget({ kind, addresses, primary }: RedisTarget): string {
  const hosts = addresses.map(({ host, port }) => `${host.includes(":") ? `[${host}]` : host}:${port}`).join(",");
  return kind === "single" ? hosts : `${kind} ${hosts}${primary === "" ? "" : ` (${primary})`}`;
}

function splitOnce(text: string, separator: string): readonly [string, string?] {
  const at = text.indexOf(separator);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + separator.length)];
}

function parseAddress(text: string, defaultPort: number): RedisAddress {
  const isV6 = text.startsWith("[");
  const end = isV6 ? text.indexOf("]") : -1;
  const host = isV6 ? text.slice(1, end) : splitOnce(text, ":")[0];
  const tail = isV6 ? text.slice(end + 1) : text.slice(host.length);
  const port = tail === "" ? defaultPort : /^:\d{1,5}$/.test(tail) ? Number(tail.slice(1)) : NaN;
  if (host === "" || (isV6 && end < 0) || !/^[\w.:-]+$/.test(host)) throw new RangeError("expected a host");
  if (!(port >= 1 && port <= 65_535)) throw new RangeError(`expected a port from 1 to 65535 behind ${host}`);
  return { host, port };
}

function parseDatabase(text: string): number {
  if (text === "") return 0;
  if (!/^\d{1,5}$/.test(text)) throw new RangeError("expected the number of a database at the end, such as /0");
  return Number(text);
}

function decoded(text: string, what: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new RangeError(`expected a ${what} with % only as part of an escape such as %40`);
  }
}
