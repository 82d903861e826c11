import { AppError } from "../../errors.ts";
import type { Awaitable } from "../../lib/awaitable.ts";
import type { Log } from "../../lib/log.ts";
import type { Redis } from "../../lib/redis/redis.ts";
import { createKeyedQueue } from "../files/keyed-queue.ts";
import type { OwnedTextFormat } from "../files/owned-text.ts";
import type { AccountProblem } from "../users.ts";
import { type Documents, nameIn } from "./documents.ts";
import { createFreshCache } from "./fresh-cache.ts";
import { createProblems } from "./problems.ts";

/** The sessions or the keys of one user. */
export interface OwnedList<T> {
  /** "new" if nothing is stored. */
  readonly version: string;
  readonly entries: readonly T[];
  readonly byName: ReadonlyMap<string, T>;
  /** Nothing of what is stored can be read. */
  readonly isBroken: boolean;
  /** Rows that can't be read, which are kept. */
  readonly unread: readonly unknown[];
}

/** A list as it is in Redis, and Redis's time then, in ms since the epoch. */
export interface CurrentList<T> extends OwnedList<T> {
  readonly now: number;
}

/** What is to become of a list. */
export interface OwnedEdit<R> {
  readonly result: R;
  /** What is stored instead; absent: the list stays. */
  readonly rows?: readonly object[] | undefined;
}

/** A document for each user, with a list that only the proxy writes. */
export interface OwnedDocuments<T> {
  /** At once while it may be trusted. */
  get(user: string): Awaitable<OwnedList<T>>;
  /** As get, where it is cached; else undefined, and the read has begun. */
  atOnce(user: string): OwnedList<T> | undefined;
  /** Reads it now. */
  renew(user: string): Promise<OwnedList<T>>;
  /**
   * Changes a list as it is stored now; `edit` is called again if somebody else was faster.
   *
   * @throws RedisUnavailableError: the outcome is unknown; and what `edit` throws
   */
  change<R>(user: string, edit: (current: CurrentList<T>) => Awaitable<OwnedEdit<R>>): Promise<R>;
  /** What could not be read when it was needed. */
  problems(): Promise<readonly AccountProblem[]>;
  /** Waits for changes on their way. */
  idle(): Promise<void>;
}

export interface OwnedDocumentsOptions<T> {
  readonly kind: "sessions" | "keys";
  readonly redis: Redis;
  readonly documents: Documents;
  readonly format: OwnedTextFormat<T>;
  /** Names an entry among those of its user. */
  readonly nameOf: (entry: T) => string;
  readonly log: Log;
  /** Monotonic ms. */
  readonly monotonic: () => number;
}

/** As often a change is tried again. */
const maxTries = 100;

export function createOwnedDocuments<T>(options: OwnedDocumentsOptions<T>): OwnedDocuments<T> {
  const { kind, documents, format, nameOf } = options;
  const problems = createProblems(options.log, `some ${kind} of a user cannot be read: not in force`);
  /** Changes of one user by this process go one after another, so that only other processes can be faster. */
  const queue = createKeyedQueue();
  const empty: OwnedList<T> = { version: "new", entries: [], byName: new Map(), isBroken: false, unread: [] };
  const cache = createFreshCache<OwnedList<T>>({
    async read(user, previous) {
      const { document } = await documents.read(kind, user);
      if (document === undefined) return undefined;
      return previous?.version === document.version ? previous : parse(user, document);
    },
    trustedAwayMs: documents.trustedAwayMs,
    monotonic: options.monotonic,
  });
  options.redis.onChange("doc", (key) => {
    const user = key === null ? null : nameIn(key, kind);
    if (user === null) cache.forgetAll();
    else if (user !== undefined) cache.forget(user);
  });

  function parse(user: string, { version, text }: { readonly version: string; readonly text: string }): OwnedList<T> {
    const read = format.parse(user, text);
    const file = `${user}.${kind}.toml`;
    if (read.problems.length === 0) problems.clear(user);
    else problems.report(user, ...read.problems.map((problem) => ({ file, ...problem })));
    const entries = read.rows.map(({ entry }) => entry);
    const byName = new Map(entries.map((entry) => [nameOf(entry), entry]));
    return { version, entries, byName, isBroken: read.isBroken, unread: read.unread };
  }

  async function tryChanges<R>(user: string, edit: (current: CurrentList<T>) => Awaitable<OwnedEdit<R>>): Promise<R> {
    for (let tries = 0; tries < maxTries; tries++) {
      const { document, now } = await documents.read(kind, user);
      const current = document === undefined ? empty : parse(user, document);
      const { rows, result } = await edit({ ...current, now });
      if (rows === undefined) return result;
      const text = format.write([...rows, ...current.unread]);
      try {
        if ((await documents.put({ kind, name: user, text, expected: current.version })) !== undefined) return result;
      } finally {
        cache.forget(user);
      }
    }
    throw new AppError("storage_unavailable", { message: `The ${kind} are changed by others all the time.` });
  }

  return {
    get(user) {
      const list = cache.get(user);
      return list instanceof Promise ? list.then((later) => later ?? empty) : (list ?? empty);
    },
    atOnce(user) {
      const list = cache.get(user);
      if (!(list instanceof Promise)) return list ?? empty;
      // Whoever calls get() next joins this read, and hears of its failure.
      list.catch(() => undefined);
      return undefined;
    },
    renew: async (user) => (await cache.renew(user)) ?? empty,
    change: (user, edit) => queue.run(user, () => tryChanges(user, edit)),
    problems: () => problems.current((user) => cache.renew(user)),
    idle: () => queue.idle(),
  };
}
