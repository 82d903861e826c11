import type { Group, Groups } from "../identity/groups.ts";
import type { Users } from "../identity/users.ts";
import type { Clock } from "../lib/clock.ts";
import type { Ledger } from "../quota/ledger.ts";

export interface FreeNamesOptions {
  readonly users: Pick<Users, "get">;
  readonly groups: Pick<Groups, "list" | "ofUser">;
  readonly ledger: Pick<Ledger, "usage">;
  /** usage.keep_days */
  readonly usageDays: () => number;
  readonly clock: Clock;
}

/**
 * Why a name is not for somebody who comes without an administrator; undefined if it is free. With a name that was
 * somebody's, or stands for something, would come usage, a group, or what others see.
 */
export type NameHolder = (name: string) => Promise<"user" | "service" | "group" | "former user" | undefined>;

const dayMs = 86_400_000;

export function createNameHolder({ users, groups, ledger, usageDays, clock }: FreeNamesOptions): NameHolder {
  return async (name) => {
    if ((await users.get(name)) !== undefined) return "user";
    if (name.startsWith("svc-")) return "service";
    const owns = ({ owners }: Group): boolean => owners.includes(name);
    if ((await groups.ofUser(name)).length > 0 || (await groups.list()).some(owns)) return "group";
    const dayIn = (days: number): string => new Date(clock.now() + days * dayMs).toISOString().slice(0, 10);
    const kept = { from: dayIn(-usageDays() - 1), to: dayIn(1) };
    return (await ledger.usage({ user: name, ...kept })).length > 0 ? "former user" : undefined;
  };
}
