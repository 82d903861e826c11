import type { Config, GroupConfig } from "../../config/schema.ts";
import { AppError } from "../../errors.ts";
import type { Awaitable } from "../../lib/awaitable.ts";
import type { Log } from "../../lib/log.ts";
import type { Redis } from "../../lib/redis/redis.ts";
import { createKeyedQueue } from "../files/keyed-queue.ts";
import {
  checkedGroup,
  checkNewGroup,
  checkNewView,
  checkRemovable,
  checkStoredGroup,
  createGroupView,
  groupProblems,
  groupReason,
  groupText,
  type GroupView,
  noSuchGroup,
  parseGroup,
  withGroupPatch,
} from "../group-view.ts";
import type { Group, Groups } from "../groups.ts";
import type { AccountProblem } from "../users.ts";
import { type Documents, nameIn } from "./documents.ts";
import { createFreshCache } from "./fresh-cache.ts";

export interface RedisGroupsOptions {
  readonly redis: Redis;
  readonly documents: Documents;
  /** Those of the config, which win over stored ones of the same name. */
  readonly groups: Config["groups"];
  readonly log: Log;
  /** Monotonic ms. */
  readonly monotonic: () => number;
}

/** The groups of the config, and those in Redis, each with the text of groups/NAME.toml. */
export interface RedisGroups extends Groups {
  /** At once while what is known of all groups may be trusted. */
  ofUser(user: string): Awaitable<readonly Group[]>;
  /** Those that are known at this moment, however old that is: for what is only prepared. */
  latest(): readonly Group[];
  /** Replaces those of the config. */
  configure(groups: Config["groups"]): void;
  /** Calls the listener after each change of the groups that this process notices. */
  onChange(listener: () => void): void;
  /** Waits for changes that are being stored. */
  close(): Promise<void>;
}

/** All groups as they were stored at one moment. */
interface Snapshot {
  /** Differs after each change of any stored group. */
  readonly revision: string;
  readonly stored: ReadonlyMap<string, GroupConfig>;
  readonly versions: ReadonlyMap<string, string>;
  /** Those whose removal has begun: not in force, but their names are taken. */
  readonly removing: ReadonlySet<string>;
  readonly broken: ReadonlyMap<string, AccountProblem>;
  readonly ofConfig: Config["groups"];
  readonly view: GroupView;
}

const none: readonly Group[] = [];
/** All groups are one entry of the cache. */
const all = "all";
/** Names read at once; more than there may be. */
const maxNames = 5000;
const maxTries = 100;
/** The mark of a document whose group is being removed. */
const removalMark = "removing";

export function openRedisGroups(options: RedisGroupsOptions): RedisGroups {
  const { redis, documents, log } = options;
  const tag = documents.tagOf("groups", all);
  const queue = createKeyedQueue();
  const listeners: (() => void)[] = [];
  let ofConfig = options.groups;
  let latest = createGroupView(ofConfig, new Map());

  const cache = createFreshCache<Snapshot>({
    read: (_, previous) => read(previous),
    trustedAwayMs: documents.trustedAwayMs,
    monotonic: options.monotonic,
  });
  /** Reads the groups again, beside everything else. */
  const refresh = (): void => void cache.renew(all).catch(() => undefined);
  redis.onChange("doc", (key) => {
    if (key !== null && nameIn(key, "groups") === undefined) return;
    // Without a key nothing is known to have changed: while Redis is away, what was read may serve on.
    if (key === null) cache.forgetAll();
    else cache.forget(all);
    refresh();
  });
  refresh();

  async function read(previous: Snapshot | undefined): Promise<Snapshot> {
    const of = ofConfig;
    for (let tries = 0; tries < maxTries; tries++) {
      const known = previous?.revision ?? "";
      const page = await documents.namesIn(tag, "groups", { limit: maxNames, known });
      const next = page === undefined ? previous : await load(page.revision, page.names, of);
      if (next === undefined) continue;
      if (page !== undefined) {
        const isSame = (await documents.namesIn(tag, "groups", { limit: 1, known: page.revision })) === undefined;
        if (!isSame) continue;
      }
      const snapshot = next.ofConfig === of ? next : { ...next, ofConfig: of, view: createGroupView(of, next.stored) };
      use(snapshot);
      return snapshot;
    }
    throw new AppError("storage_unavailable", { message: "The groups are changed by others all the time." });
  }

  async function load(revision: string, names: readonly string[], of: Config["groups"]): Promise<Snapshot> {
    const stored = new Map<string, GroupConfig>();
    const versions = new Map<string, string>();
    const removing = new Set<string>();
    const broken = new Map<string, AccountProblem>();
    const readings = await Promise.all(names.map((name) => documents.read("groups", name)));
    for (const [at, { document }] of readings.entries()) {
      const name = names[at] ?? "";
      if (document === undefined) continue;
      versions.set(name, document.version);
      try {
        const config = parseGroup(name, document.text);
        if (document.mark === removalMark) removing.add(name);
        else stored.set(name, config);
      } catch (error) {
        broken.set(name, { file: `groups/${name}.toml`, reason: groupReason(error) });
      }
    }
    return { revision, stored, versions, removing, broken, ofConfig: of, view: createGroupView(of, stored) };
  }

  function use({ view, broken }: Snapshot): void {
    if (view === latest) return;
    latest = view;
    for (const problem of broken.values()) log.error(problem, "a group cannot be read: not in force");
    for (const listener of listeners) listener();
  }

  const current = (): Awaitable<Snapshot> => {
    const snapshot = cache.get(all);
    return snapshot instanceof Promise ? snapshot.then(present) : present(snapshot);
  };

  function mapped<T>(pick: (snapshot: Snapshot) => T): Awaitable<T> {
    const snapshot = current();
    return snapshot instanceof Promise ? snapshot.then(pick) : pick(snapshot);
  }

  /**
   * Tries a change on all groups as they are stored now, until nobody else has changed any meanwhile: each change is
   * checked against all of them. Those of this process go one after another.
   */
  async function untilStored<T>(change: (now: Snapshot) => Promise<{ readonly done: T } | undefined>): Promise<T> {
    for (let tries = 0; tries < maxTries; tries++) {
      cache.forget(all);
      const outcome = await change(present(await cache.renew(all)));
      if (outcome === undefined) continue;
      // What this process does next sees the change.
      cache.forget(all);
      return outcome.done;
    }
    throw new AppError("storage_unavailable", { message: "The groups are changed by others all the time." });
  }

  async function store(
    now: Snapshot,
    name: string,
    config: GroupConfig,
  ): Promise<{ readonly done: Group } | undefined> {
    const next = createGroupView(now.ofConfig, new Map(now.stored).set(name, config));
    checkNewView(now.view, next, name);
    const expected = now.versions.get(name) ?? "new";
    const text = groupText(config);
    const version = await documents.put({ kind: "groups", name, text, expected, revision: now.revision });
    const group = next.groups.get(name);
    return version === undefined || group === undefined ? undefined : { done: group };
  }

  /** Takes a group out of use; its name stays taken. Returns the version of its document; undefined if there is none. */
  function beginRemoval(
    name: string,
    check: ((group: Group) => void) | undefined,
  ): Promise<{ readonly version: string; readonly text: string } | undefined> {
    return untilStored(async (now) => {
      checkStoredGroup(now.ofConfig, name);
      const version = now.versions.get(name);
      if (version === undefined || now.broken.has(name)) return { done: undefined };
      const { document } = await documents.read("groups", name);
      if (document?.version !== version) return undefined;
      const { text } = document;
      const known = new Map(now.stored).set(name, parseGroup(name, text));
      const group = createGroupView(now.ofConfig, known).groups.get(name);
      if (group !== undefined) check?.(group);
      // The process that began it may have died.
      if (now.removing.has(name)) return { done: { version, text } };
      checkRemovable(now.view, name);
      const change = { kind: "groups", name, text, mark: removalMark, expected: version } as const;
      const marked = await documents.put({ ...change, revision: now.revision });
      return marked === undefined ? undefined : { done: { version: marked, text } };
    });
  }

  const inTurn = <T>(task: () => Promise<T>): Promise<T> => queue.run(all, task);

  return {
    get: (name) => mapped(({ view }) => view.groups.get(name)),
    list: () => mapped(({ view }) => [...view.groups.values()]),
    ofUser: (user) => mapped(({ view }) => view.ofUser.get(user) ?? none),
    latest: () => [...latest.groups.values()],
    create: (name, fields) =>
      inTurn(() =>
        untilStored((now) => {
          checkNewGroup(now.view, name);
          if (now.broken.has(name)) throw conflict(`The file of the group ${name} is damaged.`);
          if (now.removing.has(name))
            throw conflict(`The group ${name} is being removed. Remove it again to end that.`);
          return store(now, name, checkedGroup(fields));
        }),
      ),
    change: (name, patch) =>
      inTurn(() =>
        untilStored((now) => {
          checkStoredGroup(now.ofConfig, name);
          const group = now.view.groups.get(name);
          const before = now.stored.get(name);
          if (group === undefined || before === undefined) throw noSuchGroup(name);
          const changes = typeof patch === "function" ? patch(group) : patch;
          return store(now, name, checkedGroup(withGroupPatch(before, changes)));
        }),
      ),
    remove: (name, endAccess, check) =>
      inTurn(async () => {
        const begun = await beginRemoval(name, check);
        if (begun === undefined) return false;
        const change = { kind: "groups", name, expected: begun.version, revision: "any" } as const;
        try {
          await endAccess?.();
          const isGone = (await documents.put({ ...change, text: null })) !== undefined;
          // Or another process was faster with the same; or has taken it back.
          if (!isGone && (await documents.read("groups", name)).document !== undefined) {
            throw conflict(`The group ${name} has been changed meanwhile.`);
          }
        } catch (error) {
          // If this fails as well, it is being removed until somebody tries again.
          await documents.put({ ...change, text: begun.text }).catch(() => undefined);
          throw error;
        } finally {
          cache.forget(all);
        }
        return true;
      }),
    problems: () =>
      mapped(({ view, stored, broken, ofConfig: of }) => [...broken.values(), ...groupProblems(view, of, stored)]),
    configure(groups) {
      ofConfig = groups;
      cache.forget(all);
      refresh();
    },
    onChange: (listener) => listeners.push(listener),
    close: () => queue.idle(),
  };
}

function present(snapshot: Snapshot | undefined): Snapshot {
  if (snapshot === undefined) throw new Error("the groups were not read");
  return snapshot;
}

function conflict(message: string): AppError {
  return new AppError("conflict", { message });
}
