import { randomBytes } from "node:crypto";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import { type Redis, replyList, replyNumber, replyText } from "../lib/redis/redis.ts";
import { type Board, createBoard } from "./board.ts";

/** What a process says about itself. */
interface NodeFacts {
  /** When it was started, in ms since the epoch. */
  readonly startedAt: number;
  readonly version: string;
  /** Where it listens. */
  readonly address: string;
  /** A digest of its config: shows which processes run with a different one. */
  readonly config: string;
  /**
   * What periods and limits in Redis depend on, as a text for people: all must have the same. "": unknown, as of an older
   * version.
   */
  readonly quota: string;
}

/** A process as others see it. */
interface FleetNode extends NodeFacts {
  readonly id: string;
  /** ms since it was last heard of. */
  readonly silentMs: number;
  readonly isLeader: boolean;
  readonly isThis: boolean;
}

/** All processes over one Redis. */
export interface Fleet {
  /** The name of this process among all, new at each start. */
  readonly id: string;
  /** Whether this process does what only one need do, such as probes. Two that do it for a moment do no harm. */
  leads(): boolean;
  /** The number of its lease, greater than that of every leader before; 0: it doesn't lead. */
  term(): number;
  /** Calls the listener when that begins or ends. */
  onLead(listener: (leads: boolean) => void): void;
  /** Whether this process is the first of all to claim a name within so many ms. Rejects if Redis is away. */
  claim(name: string, ms: number): Promise<boolean>;
  /** Those that live, and those that died less than a minute ago. Rejects if Redis is away. */
  nodes(): Promise<readonly FleetNode[]>;
  readonly board: Pick<Board, "set" | "follow">;
  /** Lets another one lead, and leaves. */
  close(): Promise<void>;
}

export interface FleetOptions {
  readonly redis: Redis;
  /** Read for each sign of life, since the config and the address may change. */
  readonly facts: () => NodeFacts;
  readonly clock: Clock;
  readonly log: Log;
  /** How long a leader leads that has died, in ms. Default 6 s. */
  readonly leaseMs?: number;
}

/** How often a process gives a sign of life, in ms. */
const beatMs = 2000;
/** After how long it is forgotten. */
const forgetMs = 60_000;
/** Share of a lease for which its holder trusts it: clocks may run at different speeds. */
const trusted = 0.9;

/** A process that is silent for longer may be gone: it speaks every `beatMs`. */
const livingMs = 3 * beatMs;

/** Joins the fleet. Rejects if Redis can't be asked, and where a living process counts by another `quota`. */
export async function openFleet(options: FleetOptions): Promise<Fleet> {
  const { redis, facts, clock, log, leaseMs = 6000 } = options;
  const id = randomBytes(6).toString("hex");
  const tag = redis.tagOf("fleet");
  const lease = [redis.keyIn(tag, "lease", "leader"), redis.keyIn(tag, "term", "leader")] as const;
  const nodeKeys = [redis.keyIn(tag, "nodes"), redis.keyIn(tag, "seen")] as const;
  const board = createBoard(redis, id, log);
  const listeners: ((leads: boolean) => void)[] = [];
  let term = 0;
  /** Until when the lease is held for sure, in monotonic ms. */
  let leadsUntil = -Infinity;
  let wasLeading = false;

  let claims = 0;
  let isClosed = false;
  const leads = (): boolean => clock.monotonic() < leadsUntil;

  function noteLead(): void {
    const isLeading = leads();
    if (isLeading === wasLeading) return;
    wasLeading = isLeading;
    log.info({ event: "fleet", leads: isLeading, term }, isLeading ? "this process leads" : "another process leads");
    for (const listener of listeners) {
      try {
        listener(isLeading);
      } catch (error) {
        log.error({ err: error }, "a change of the leader could not be carried out");
      }
    }
  }

  async function takeLease(): Promise<void> {
    // From before the call: Redis counts from a later moment.
    const from = clock.monotonic();
    const [isOurs, number] = replyList(await redis.call("lease_take", lease, [id, leaseMs]));
    // It was asked before this process left: the drop of the lease is behind it.
    if (isClosed) return;
    if (replyNumber(isOurs) === 1) {
      term = replyNumber(number);
      leadsUntil = from + trusted * leaseMs;
    } else leadsUntil = -Infinity;
    noteLead();
  }

  async function beat(): Promise<void> {
    await redis.call("fleet_beat", nodeKeys, [id, JSON.stringify(facts()), forgetMs]);
  }

  function every(ms: number, act: () => Promise<void>): NodeJS.Timeout {
    return setInterval(() => {
      // Redis is away: what is held lapses, and the next turn tries again.
      act().catch(noteLead);
    }, ms).unref();
  }

  async function nodes(): Promise<readonly FleetNode[]> {
    const [found, leader] = await Promise.all([
      redis.call("fleet_list", nodeKeys, []),
      redis.send(lease[0], ["GET", lease[0]]),
    ]);
    const [leaderId] = replyText(leader).split(" ");
    return replyList(found).flatMap((one) => {
      const [nodeId = "", text = "", silent = ""] = replyList(one).map(replyText);
      const said = factsOf(text);
      if (said === null) return [];
      return { ...said, id: nodeId, silentMs: Number(silent), isLeader: nodeId === leaderId, isThis: nodeId === id };
    });
  }

  /** Else two processes would begin one period at two times, and a user has each limit twice. */
  async function checkQuota(): Promise<void> {
    const { quota } = facts();
    const other = (await nodes()).find(
      (one) => !one.isThis && one.silentMs < livingMs && one.quota !== "" && one.quota !== quota,
    );
    if (other === undefined) return;
    throw new Error(
      `this process counts quotas by ${quota}, but the one at ${other.address} over the same Redis by ${other.quota}: ` +
        "give all of them the same; to change it, stop all of them first",
    );
  }

  const timers = [every(leaseMs / 3, takeLease), every(beatMs, beat)];
  async function close(): Promise<void> {
    isClosed = true;
    for (const timer of timers) clearInterval(timer);
    board.close();
    leadsUntil = -Infinity;
    noteLead();
    // Otherwise both lapse.
    await Promise.allSettled([redis.call("lease_drop", [lease[0]], [id]), redis.call("fleet_leave", nodeKeys, [id])]);
  }

  try {
    await Promise.all([takeLease(), beat(), board.look()]);
    await checkQuota();
  } catch (error) {
    await close();
    throw error;
  }

  return {
    id,
    leads,
    term: () => (leads() ? term : 0),
    onLead(listener) {
      listeners.push(listener);
    },
    async claim(name, ms) {
      const key = redis.keyIn(tag, "claim", name);
      const own = `${id}:${++claims}`;
      // Where the answer was lost and this is sent again, its own claim is the known one.
      const known = await redis.send(key, ["SET", key, own, "NX", "GET", "PX", String(ms)]);
      return known === null || known === own;
    },
    nodes,
    board,
    close,
  };
}

/** What another process said, which may be of another version. */
function factsOf(text: string): NodeFacts | null {
  try {
    const said = JSON.parse(text) as Partial<Record<keyof NodeFacts, unknown>>;
    const { startedAt, version, address, config, quota } = said;
    const word = (value: unknown): string => (typeof value === "string" ? value : "");
    return {
      startedAt: typeof startedAt === "number" ? startedAt : 0,
      version: word(version),
      address: word(address),
      config: word(config),
      quota: word(quota),
    };
  } catch {
    return null;
  }
}
