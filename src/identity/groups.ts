import type { GroupConfig, GroupRate, LimitConfig } from "../config/schema.ts";
import type { Account } from "./account-schema.ts";
import type { Awaitable } from "../lib/awaitable.ts";
import { createAllowList } from "../lib/globs.ts";
import type { AccountProblem } from "./users.ts";

/** Users who share limits. Replaced, never mutated: a request keeps the one that it began with. */
export interface Group {
  readonly name: string;
  readonly description: string;
  /** Users who see its usage; they need not be members. */
  readonly owners: readonly string[];
  /** Users, those of groups among its members included; sorted. */
  readonly members: readonly string[];
  /** The members as they are written: users, and groups behind an @. */
  readonly listed: readonly string[];
  /** Shared limits of the quota, in addition to those of each member. */
  readonly limits: readonly LimitConfig[];
  /** Shared rates. */
  readonly rates: readonly GroupRate[];
  /** null: all models. */
  readonly models: readonly string[] | null;
  /** Requests of all members at once; null: no limit. */
  readonly maxParallel: number | null;
  readonly origin: "config" | "admin";
  has(user: string): boolean;
  /** @param model the name that the client sends, or that providers know */
  allowsModel(model: string): boolean;
}

/** What administrators set of a group; absent fields have their defaults. */
export type GroupFields = Partial<GroupConfig>;

/** What they change; null removes. */
export type GroupPatch = { readonly [Key in keyof GroupConfig]?: GroupConfig[Key] | null | undefined };

/** All groups: those of config.toml, and those that administrators have made. */
export interface Groups {
  /** Called for requests: an implementation behind a network keeps a cache. */
  get(name: string): Awaitable<Group | undefined>;
  /** Those of the config in their order, then the others by name. */
  list(): Awaitable<readonly Group[]>;
  /** The groups of which a user is a member, in the same order. Called for every request, at the cost of a lookup. */
  ofUser(user: string): Awaitable<readonly Group[]>;
  /** @throws AppError `invalid_request` (it names the field), `conflict` (the name is taken), `storage_unavailable` */
  create(name: string, fields: GroupFields): Awaitable<Group>;
  /**
   * Changes a group as it is stored now.
   *
   * @param patch the changes, or a function that computes them from the current group
   * @throws AppError as `create`; `not_found`, `conflict` (a group of the config)
   */
  change(name: string, patch: GroupPatch | ((group: Group) => GroupPatch)): Awaitable<Group>;
  /**
   * Removes a group. What runs in it goes on; the ledger's counts stay with the name.
   *
   * @param endAccess ends what is bound to the name; called once the group is out of use, and before the name is free
   * again. If it fails, the group stays, and what it throws is thrown
   * @param check called with the group as it is stored then, before anything changes; what it throws is thrown
   * @returns false if there is none
   * @throws AppError `conflict` (a group of the config, or one that is a member of another), `storage_unavailable`
   */
  remove(name: string, endAccess?: () => Promise<unknown>, check?: (group: Group) => void): Awaitable<boolean>;
  /** Stored groups that are not in force as they are. */
  problems(): Awaitable<readonly AccountProblem[]>;
}

/** Whether an account counts as a member. A service account is one of its default group, whether that lists it or not. */
export function isMember(group: Group, account: Pick<Account, "username" | "service" | "default_group">): boolean {
  return group.has(account.username) || (account.service === true && account.default_group === group.name);
}

/** @param members without groups, sorted */
export function createGroup(
  name: string,
  config: GroupConfig,
  members: readonly string[],
  origin: Group["origin"],
): Group {
  const all = new Set(members);
  return {
    name,
    description: config.description,
    owners: config.owners,
    members,
    listed: config.members,
    limits: config.limits,
    rates: config.rates,
    models: config.models ?? null,
    maxParallel: config.max_parallel ?? null,
    origin,
    has: (user) => all.has(user),
    allowsModel: createAllowList(config.models),
  };
}
