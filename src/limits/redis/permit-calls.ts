import { type Redis, type RedisReply, replyNumber, replyText } from "../../lib/redis/redis.ts";
import type { PermitScope } from "../concurrency.ts";

/** What a request needs, by where its scopes are: the user's in the user's slot, all others in one slot for all. */
export interface Needs {
  readonly user: string;
  readonly weight: number;
  readonly own: PermitScope | null;
  readonly shared: readonly PermitScope[];
  /** It needs one of these; empty: none. One without a cap has `max` Infinity. */
  readonly providers: readonly PermitScope[];
}

/** Places that are held in Redis. */
export interface Places {
  /** Identifies them among all processes. */
  readonly id: string;
  readonly own: PermitScope | null;
  readonly shared: readonly PermitScope[];
  provider: PermitScope | null;
}

/** Requests that wait in the lines of Redis; see permits.lua. */
export interface Entry {
  readonly name: string;
  ownRank: number;
  sharedRank: number;
  /** Whether it is in lines beside that of its user. */
  isInShared: boolean;
  isPatient: boolean;
}

/** What keeps a request out. */
export interface Blocked {
  readonly scopes: readonly PermitScope[];
  /** Entries that have a right to a place before it. */
  readonly ahead: number;
}

/** The calls of permits.lua, and how they are made. */
export interface PermitCalls {
  /**
   * Takes all places or none, in one round trip, for a request that does not wait. Where this throws, or the next one, the
   * places may be held or not: see allPlaces.
   */
  take(needs: Needs, id: string): Promise<Places | Blocked>;
  /** The same for requests that wait: asks for the user's place first, so that no other place is kept meanwhile. */
  takeInTurn(needs: Needs, id: string, entry: Entry): Promise<Places | Blocked>;
  release(places: Places): Promise<void>;
  /** Moves a place at a provider, if the other one has room. */
  move(places: Places, to: PermitScope): Promise<boolean>;
  renew(all: readonly Places[]): Promise<void>;
  leave(needs: Needs, entry: Entry): Promise<void>;
}

/** Of a rank: users who may have twice as much go half as far with each request. */
const fullStep = 1_000_000;
/** Leases renewed in one call. */
const chunk = 200;

/** The name of a scope among all. */
export function scopeName({ kind, key }: Pick<PermitScope, "kind" | "key">): string {
  return `${kind}/${key}`;
}

/** Whatever a call for these needs may have taken. */
export function allPlaces({ own, shared, providers }: Needs, id: string): Places {
  return { id, own, shared: [...shared, ...providers], provider: null };
}

/** @param process the name of this process among all, without `:` */
export function createPermitCalls(redis: Redis, process: string, leaseMs: number): PermitCalls {
  const sharedTag = redis.tagOf("permits");

  function tagOf({ kind, key }: PermitScope): string {
    return kind === "user" ? redis.tagOf(key) : sharedTag;
  }

  function keyOf(what: "permit" | "line" | "wake", scope: PermitScope): string {
    return redis.keyIn(tagOf(scope), what, scopeName(scope));
  }

  async function acquire(
    needs: Needs,
    id: string,
    tag: string,
    needed: readonly PermitScope[],
    choices: readonly PermitScope[],
    entry: { readonly name: string; readonly rank: number; readonly isPatient: boolean },
  ): Promise<{ readonly chosen: PermitScope | null } | (Blocked & { readonly rank: number })> {
    const scopes = [...needed, ...choices];
    const keys: [string, ...string[]] = [redis.keyIn(tag, "turns"), redis.keyIn(tag, "waiters")];
    const step = Math.round(fullStep / needs.weight);
    const { name, rank, isPatient } = entry;
    const args = [id, leaseMs, name, process, needs.user, rank, step, isPatient ? 1 : 0, needed.length];
    for (const scope of scopes) {
      keys.push(keyOf("permit", scope), keyOf("line", scope));
      args.push(Number.isFinite(scope.max) ? scope.max : -1);
    }
    const [verdict, ...figures] = replyText(await redis.call("permits_acquire", keys, args)).split(" ");
    const numbers = figures.map(Number);
    if (verdict === "T") return { chosen: choices[(numbers[0] ?? 0) - 1] ?? null };
    const [newRank = 0, ahead = 0, ...blocked] = numbers;
    return { scopes: blocked.flatMap((number) => scopes[number - 1] ?? []), ahead, rank: newRank };
  }

  const nobody = { name: "", rank: 0, isPatient: false };

  function takeOwn(needs: Needs, id: string, entry: Parameters<typeof acquire>[5]) {
    const { own } = needs;
    return own === null ? null : acquire(needs, id, tagOf(own), [own], [], entry);
  }

  function takeShared(needs: Needs, id: string, entry: Parameters<typeof acquire>[5]) {
    const { shared, providers } = needs;
    const [first] = providers;
    // The first provider with room is the first one.
    if (shared.length === 0 && (first === undefined || first.max === Infinity)) return { chosen: first ?? null };
    return acquire(needs, id, sharedTag, shared, providers, entry);
  }

  function placesOf({ own, shared }: Needs, id: string, provider: PermitScope | null): Places {
    return { id, own, shared, provider };
  }

  /** @param scopes of one request */
  async function releaseOf(id: string, scopes: readonly PermitScope[]): Promise<void> {
    const ofUser: string[] = [];
    const shared: string[] = [];
    for (const scope of scopes) {
      if (scope.max === Infinity) continue;
      const keys = scope.kind === "user" ? ofUser : shared;
      keys.push(keyOf("permit", scope), keyOf("line", scope), keyOf("wake", scope));
    }
    const release = async ([first, ...others]: readonly string[]) =>
      first === undefined ? null : redis.call("permits_release", [first, ...others], [id]);
    await Promise.all([release(ofUser), release(shared)]);
  }

  return {
    async take(needs, id) {
      const [own, shared] = await Promise.allSettled([takeOwn(needs, id, nobody), takeShared(needs, id, nobody)]);
      if (own.status === "rejected" || shared.status === "rejected") {
        throw (own.status === "rejected" ? own : (shared as PromiseRejectedResult)).reason;
      }
      const isOwnTaken = own.value === null || "chosen" in own.value;
      if (isOwnTaken && "chosen" in shared.value) return placesOf(needs, id, shared.value.chosen);
      if (needs.own !== null && isOwnTaken) await releaseOf(id, [needs.own]);
      if ("chosen" in shared.value) {
        const { chosen } = shared.value;
        await releaseOf(id, chosen === null ? needs.shared : [...needs.shared, chosen]);
      }
      return own.value !== null && "scopes" in own.value ? own.value : (shared.value as Blocked);
    },
    async takeInTurn(needs, id, entry) {
      const { name, isPatient } = entry;
      const own = await takeOwn(needs, id, { name, rank: entry.ownRank, isPatient: false });
      if (own !== null && "scopes" in own) {
        entry.ownRank = own.rank;
        // No place is kept elsewhere for one that could not use it.
        if (entry.isInShared) await leaveShared(needs, name);
        entry.isInShared = false;
        return own;
      }
      entry.ownRank = 0;
      entry.isInShared = true;
      const shared = await takeShared(needs, id, { name, rank: entry.sharedRank, isPatient });
      if ("scopes" in shared) {
        entry.sharedRank = shared.rank;
        if (needs.own !== null) await releaseOf(id, [needs.own]);
        return shared;
      }
      entry.sharedRank = 0;
      entry.isInShared = false;
      return placesOf(needs, id, shared.chosen);
    },
    release: ({ id, own, shared, provider }) =>
      releaseOf(id, [...(own === null ? [] : [own]), ...shared, ...(provider === null ? [] : [provider])]),
    async move(places, to) {
      const from = places.provider;
      const former = from ?? to;
      const keys: [string, ...string[]] = [
        redis.keyIn(sharedTag, "waiters"),
        keyOf("permit", to),
        keyOf("line", to),
        keyOf("permit", former),
        keyOf("line", former),
        keyOf("wake", former),
      ];
      const max = to.max === Infinity ? -1 : to.max;
      const hadPlace = from !== null && from.max !== Infinity;
      if (max === -1 && !hadPlace) return true;
      return replyNumber(await redis.call("permits_move", keys, [places.id, leaseMs, max, hadPlace ? 1 : 0])) === 1;
    },
    async renew(all) {
      const byTag = new Map<string, { readonly keys: string[]; readonly ids: string[] }>();
      const add = (id: string, scope: PermitScope): void => {
        if (scope.max === Infinity) return;
        const tag = tagOf(scope);
        let some = byTag.get(tag);
        if (some === undefined) byTag.set(tag, (some = { keys: [], ids: [] }));
        some.keys.push(keyOf("permit", scope));
        some.ids.push(id);
      };
      for (const { id, own, shared, provider } of all) {
        if (own !== null) add(id, own);
        for (const scope of shared) add(id, scope);
        if (provider !== null) add(id, provider);
      }
      const calls: Promise<RedisReply>[] = [];
      for (const { keys, ids } of byTag.values()) {
        for (let at = 0; at < keys.length; at += chunk) {
          const [first, ...others] = keys.slice(at, at + chunk);
          if (first === undefined) continue;
          calls.push(redis.call("permits_renew", [first, ...others], [leaseMs, ...ids.slice(at, at + chunk)]));
        }
      }
      await Promise.all(calls);
    },
    async leave(needs, { name }) {
      const { own } = needs;
      const leaveOwn =
        own === null ? null : redis.call("permits_leave", [keyOf("line", own), keyOf("wake", own)], [name]);
      await Promise.all([leaveOwn, leaveShared(needs, name)]);
    },
  };

  async function leaveShared({ shared, providers }: Needs, name: string): Promise<void> {
    const [first, ...others] = [...shared, ...providers].flatMap((one) => [keyOf("line", one), keyOf("wake", one)]);
    if (first !== undefined) await redis.call("permits_leave", [first, ...others], [name]);
  }
}
