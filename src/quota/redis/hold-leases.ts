import type { Log } from "../../lib/log.ts";
import { replyList, replyNumber, replyText, type Redis } from "../../lib/redis/redis.ts";
import { SwapRemoveSet } from "../../lib/swap-remove-set.ts";
import { type AccountCalls, amountsText, chargeOf } from "./account-calls.ts";
import { type Holder, type HoldCalls, holdName, type HoldPart, type LeaseName } from "./hold-calls.ts";
import type { LedgerReplica } from "./ledger-replica.ts";

/** Keeps this node's reservations, and gives back those of nodes that are gone. */
export interface HoldLeases {
  add(parts: readonly HoldPart[], holder: Holder): void;
  remove(parts: readonly HoldPart[]): void;
  /** Renews this node's leases. What Redis has lost, or given back while this node was away, is held again. */
  renew(): Promise<void>;
  /** Holds again all that this node holds in a tag that has lost something: before anything is sold there. */
  holdAgain(tag: string): Promise<void>;
  /** Gives back what is held under leases that are over. Any node does it, at any time. */
  reap(): Promise<void>;
  /** How many parts are held. */
  count(): number;
  stop(): void;
}

export interface HoldLeasesOptions {
  readonly redis: Redis;
  readonly accounts: AccountCalls;
  readonly calls: HoldCalls;
  readonly replica: Pick<LedgerReplica, "lastSeq" | "hasBegun">;
  readonly leaseMs: number;
  readonly log: Log;
}

/** Leases renewed in one call, and reaped in one round of a tag, at the most. */
const batch = 500;
/** Held again at once. */
const callsAtOnce = 64;

/** Renews and reaps three times in the time of a lease. */
export function createHoldLeases(options: HoldLeasesOptions): HoldLeases {
  const { redis, accounts, calls, replica, leaseMs, log } = options;
  const held = new Map(redis.tags.map((tag) => [tag, new SwapRemoveSet<HoldPart>()]));
  let running = false;
  const timer = setInterval(() => void beat(), leaseMs / 3).unref();

  async function beat(): Promise<void> {
    if (running) return;
    running = true;
    try {
      // In this order: a node that was cut off says first what is still its own.
      await renew();
      await reap();
    } catch (error) {
      log.warn({ err: error }, "the leases of reservations were not renewed; this is tried again");
    } finally {
      running = false;
    }
  }

  async function renew(): Promise<void> {
    await Promise.all(
      [...held].flatMap(([tag, parts]) => {
        const all = parts.items();
        const batches = Array.from({ length: Math.ceil(all.length / batch) }, (_, index) =>
          all.slice(index * batch, (index + 1) * batch),
        );
        return batches.map(async (some) => {
          const args = [leaseMs, ...some.map(({ member }) => member)];
          const reply = replyList(await redis.call("ledger_extend", [redis.keyIn(tag, "leases")], args));
          await hold(some.filter((_, index) => replyNumber(reply[index]) !== 1));
        });
      }),
    );
  }

  async function hold(parts: readonly HoldPart[]): Promise<void> {
    for (let at = 0; at < parts.length; at += callsAtOnce) {
      const some = parts.slice(at, at + callsAtOnce).map(async (part) => {
        const { slot, holder, view, keys, member } = part;
        // It has ended meanwhile.
        if (slot === -1 || holder === undefined) return;
        const { counts, account, apiKey, tag } = view;
        const known = [replica.lastSeq(tag), replica.hasBegun(account) ? 1 : "", apiKey === undefined ? "" : 1];
        const args = [...known, amountsText(holder.heldOf(part)), leaseMs, member];
        await redis.call("ledger_hold_again", [...counts, ...keys, ...accounts.logKeys(tag)], args);
      });
      await Promise.all(some);
    }
  }

  async function reap(): Promise<void> {
    await Promise.all(
      redis.tags.map(async (tag) => {
        const keys = [redis.keyIn(tag, "leases"), redis.keyIn(tag, "reaping")] as const;
        const due = replyList(await redis.call("ledger_due", keys, [leaseMs, batch]));
        for (const member of due) await lapse(replyText(member));
      }),
    );
  }

  async function lapse(member: string): Promise<void> {
    const name = JSON.parse(member) as LeaseName;
    const [id, account, apiKey, user] = name;
    const part = calls.part(id, accounts.view(account, apiKey === "" ? undefined : apiKey, []), user);
    if (user !== "") await finishGroup(part, id, user);
    const [acct, acctkey] = part.view.counts;
    await redis.call("ledger_lapse", [acct, acctkey, ...part.keys], [member, apiKey === "" ? "0" : "1"]);
  }

  /** What a node that died has charged or settled for the user, but not for the group. */
  async function finishGroup(part: HoldPart, id: string, user: string): Promise<void> {
    const hold = redis.keyIn(redis.tagOf(user), "hold", holdName([id, user, "", ""]));
    const [state, at, first, final] = replyList(await redis.call("ledger_peek", [hold], [])).map(replyText);
    if (at === undefined || at === "" || first === undefined) return;
    const charge = { first: chargeOf(first), body: "", at: Number(at) };
    if (state === "committed") await calls.commit(part, charge);
    else if (final !== undefined && final !== "")
      await calls.settle(part, { final: chargeOf(final), body: "", first: charge, shared: false, fresh: true });
  }

  return {
    add(parts, holder) {
      for (const part of parts) {
        part.holder = holder;
        held.get(part.view.tag)?.add(part);
      }
    },
    remove(parts) {
      for (const part of parts) held.get(part.view.tag)?.delete(part);
    },
    renew,
    holdAgain: (tag) => hold(held.get(tag)?.items() ?? []),
    reap,
    count: () => [...held.values()].reduce((sum, { size }) => sum + size, 0),
    stop() {
      clearInterval(timer);
    },
  };
}

/** Leases looked at in one go. */
const peeked = 250;

/**
 * The leases of groups' parts that lack what their users' parts have: a first charge, or a final one. Each charge is so
 * for a moment; where it stays so its process is slow, or gone, and the lease brings it to an end. Throws as Redis.call.
 */
export async function halfMadeCharges(redis: Redis): Promise<ReadonlySet<string>> {
  const found = new Set<string>();
  const charged = async (name: LeaseName): Promise<readonly boolean[]> => {
    const hold = redis.keyIn(redis.tagOf(name[1]), "hold", holdName(name));
    const [, , first, final] = replyList(await redis.call("ledger_peek", [hold], [])).map(replyText);
    return [first !== "", final !== ""];
  };
  for (const tag of redis.tags) {
    const key = redis.keyIn(tag, "leases");
    const members = replyList(await redis.send(key, ["ZRANGE", key, "0", "-1"])).map(replyText);
    for (let at = 0; at < members.length; at += peeked) {
      const looks = members.slice(at, at + peeked).map(async (member) => {
        const name = JSON.parse(member) as LeaseName;
        const [id, , , user] = name;
        if (user === "") return;
        const [ofUser, ofGroup] = await Promise.all([charged([id, user, "", ""]), charged(name)]);
        if (ofUser.some((isCharged, index) => isCharged && ofGroup[index] === false)) found.add(member);
      });
      await Promise.all(looks);
    }
  }
  return found;
}
