import { groupAccount } from "../accounts.ts";
import type { QuotaLimit, ReserveRequest } from "../ledger.ts";
import { accountOf, limitName } from "./account-calls.ts";
import type { HeldAmounts } from "./hold-calls.ts";

/** For whom something is held: a user, with the group and the key of the requests. */
type Subject = Pick<ReserveRequest, "user" | "group" | "apiKey">;

/**
 * What this process holds of each limit in advance, over all its slices. The members of a group have slices of their own,
 * which all count for the group's limits: together they may have no more of these than one process may have.
 */
export interface SliceClaims {
  /** Requests of this subject are to have a slice. */
  enter(subject: Subject): void;
  /** They are to have none any more. */
  leave(subject: Subject): void;
  /** A slice of these amounts is asked for. */
  add(subject: Subject, total: HeldAmounts): void;
  /** It is not held any more, or was not granted. */
  remove(subject: Subject, total: HeldAmounts): void;
  /** How much of a limit a slice of this subject may have, beside `own`, which it gives back for that. Not below 0. */
  most(subject: Subject, limit: QuotaLimit, own: number): number;
}

/** @param share the part of each limit that the process may have */
export function createSliceClaims(share: number): SliceClaims {
  const subjects = new Map<string, number>();
  const amounts = new Map<string, number>();

  function count(map: Map<string, number>, key: string, change: number): void {
    const sum = (map.get(key) ?? 0) + change;
    if (sum === 0) map.delete(key);
    else map.set(key, sum);
  }

  function claim(subject: Subject, total: HeldAmounts, sign: 1 | -1): void {
    for (const account of accountsOf(subject))
      for (const [name, amount] of Object.entries(total)) count(amounts, `${account}\n${name}`, sign * amount);
  }

  return {
    enter(subject) {
      for (const account of accountsOf(subject)) count(subjects, account, 1);
    },
    leave(subject) {
      for (const account of accountsOf(subject)) count(subjects, account, -1);
    },
    add(subject, total) {
      claim(subject, total, 1);
    },
    remove(subject, total) {
      claim(subject, total, -1);
    },
    most(subject, limit, own) {
      const account =
        limit.apiKey === undefined ? accountOf(limit, subject.user) : keyAccount(subject.user, limit.apiKey);
      const others = (amounts.get(`${account}\n${limitName(limit)}`) ?? 0) - own;
      // By powers of two: then the parts of those who have one stay as they are for most of those who come.
      const parts = 2 ** Math.ceil(Math.log2(subjects.get(account) ?? 1));
      return Math.max(0, Math.min((share * limit.max) / parts, share * limit.max - others));
    },
  };
}

/** The accounts whose limits may count a subject. */
function accountsOf({ user, group, apiKey }: Subject): readonly string[] {
  const accounts = [user];
  if (group !== undefined) accounts.push(groupAccount(group));
  if (apiKey !== undefined) accounts.push(keyAccount(user, apiKey));
  return accounts;
}

function keyAccount(user: string, apiKey: string): string {
  return `${user}\n${apiKey}`;
}
