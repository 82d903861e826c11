import { createHash } from "node:crypto";
import { AppError } from "../errors.ts";
import type { Emit } from "../events/catalogue.ts";
import type { Account } from "../identity/account-schema.ts";
import type { ApiKeys, CreatedApiKey, NewApiKey } from "../identity/api-keys.ts";
import { noSuchGroup } from "../identity/group-view.ts";
import { isMember, type Group, type GroupFields, type GroupPatch, type Groups } from "../identity/groups.ts";
import { generatePassword } from "../identity/passwords/new-password.ts";
import { checkUserName } from "../identity/user-name.ts";
import type { Users } from "../identity/users.ts";
import type { Clock } from "../lib/clock.ts";
import type { Actor, Audit } from "./audit.ts";
import { findUser } from "./find-user.ts";
import { checkPriced, type PricedConfig } from "./priced-limits.ts";
import type { UserAdmin } from "./user-admin.ts";

/** A key that an administrator has made, and the account that it belongs to. */
interface KeyOfUser extends CreatedApiKey {
  readonly user: string;
}

/** Whether the administrator's precondition accepts the group's current entity tag. */
type Precondition = (etag: string) => boolean;

/**
 * Manages groups, and makes API keys for users and groups. All throw AppError `invalid_request` (it names the field),
 * `not_found`, `conflict` (the name is taken, or the group is one of the config), `precondition_failed` or
 * `storage_unavailable`.
 */
export interface GroupAdmin {
  list(): Promise<readonly Group[]>;
  get(name: string): Promise<Group>;
  create(actor: Actor, name: string, fields: GroupFields): Promise<Group>;
  change(actor: Actor, name: string, patch: GroupPatch, isMeant?: Precondition): Promise<Group>;
  /** Revokes the keys of the group, archives its service account and removes it. */
  remove(actor: Actor, name: string, isMeant?: Precondition): Promise<void>;
  /** Adds a user to those whom a group lists; does nothing if it lists that user. */
  addMember(actor: Actor, name: string, user: string, isMeant?: Precondition): Promise<void>;
  /** Takes a user out of those whom a group lists. Groups inside it may have that user all the same. */
  removeMember(actor: Actor, name: string, user: string, isMeant?: Precondition): Promise<void>;
  /** Makes a key of a user. */
  createKey(actor: Actor, user: string, settings: NewApiKey): Promise<KeyOfUser>;
  /**
   * Makes a key of a group.
   * @param user a member; by default the group's own service account, which is made if there is none
   */
  createGroupKey(actor: Actor, group: string, user: string | undefined, settings: NewApiKey): Promise<KeyOfUser>;
}

export interface GroupAdminOptions {
  readonly groups: Groups;
  readonly users: Pick<Users, "get" | "names">;
  readonly userAdmin: Pick<UserAdmin, "create" | "archive">;
  readonly apiKeys: Pick<ApiKeys, "create" | "list" | "revoke">;
  readonly audit: Audit;
  readonly emit: Emit;
  /** The config in force. */
  readonly config: () => PricedConfig;
  readonly clock: Clock;
}

export function createGroupAdmin(options: GroupAdminOptions): GroupAdmin {
  const { groups, users, userAdmin, apiKeys, audit, emit, config, clock } = options;

  async function find(name: string): Promise<Group> {
    const group = await groups.get(name);
    if (group !== undefined) return group;
    throw noSuchGroup(name);
  }

  async function change(
    actor: Actor,
    name: string,
    patch: GroupPatch | ((group: Group) => GroupPatch),
    isMeant?: Precondition,
  ): Promise<Group> {
    let before: Group | undefined;
    const after = await groups.change(name, (group) => {
      checkMeant(group, isMeant);
      before = group;
      const wanted = typeof patch === "function" ? patch(group) : patch;
      checkPriced(wanted.limits ?? [], group.limits, config());
      return wanted;
    });
    const [was, is] = [before === undefined ? {} : groupView(before), groupView(after)];
    const changed = Object.keys(is).filter((key) => JSON.stringify(was[key]) !== JSON.stringify(is[key]));
    const only = (view: Readonly<Record<string, unknown>>) =>
      Object.fromEntries(changed.map((key) => [key, view[key] ?? null]));
    if (changed.length > 0) {
      const difference = { before: only(was), after: only(is) };
      await audit.record(actor, { action: "group.changed", user: null, subject: name, ...difference });
    }
    return after;
  }

  async function createKey(actor: Actor, account: Account, settings: NewApiKey): Promise<KeyOfUser> {
    const { username: user } = account;
    await audit.check();
    const created = await createLastingKey({ users, groups, apiKeys, config }, account, settings);
    const { id, name, group } = created.key;
    emit({ type: "api_key.created", at: clock.now(), traceId: actor.traceId, ip: actor.ip, user, subject: id });
    const after = { name, ...(group === null ? {} : { group }) };
    await audit.record(actor, { action: "api_key.created", user, subject: id, before: null, after });
    return { ...created, user };
  }

  /** A key that could not be used in its group is of no use. */
  function checkMember(group: Group, account: Account, param: string): void {
    if (isMember(group, account)) return;
    const message = `${param}: expected a member of the group ${group.name}, which ${account.username} is not.`;
    throw new AppError("invalid_request", { param, message });
  }

  /** The account whose keys stand for the group itself. */
  async function serviceAccountOf(actor: Actor, group: Group): Promise<Account> {
    const username = serviceNameOf(group.name);
    const known = await users.get(username);
    if (known === undefined) {
      const terms = { service: true, default_group: group.name };
      return (await userAdmin.create(actor, { username, password: generatePassword(), ...terms })).account;
    }
    if (isServiceOf(known, group.name)) return known;
    const message = `There is a user ${username}, who is not the service account of ${group.name}: name a user.`;
    throw new AppError("conflict", { param: "user", message });
  }

  /**
   * Ends what would be in force again in a new group of the name. Users who have left the group, and keys that could
   * not be used in it, are looked at as well.
   */
  async function endAccess(actor: Actor, group: string): Promise<void> {
    for (const user of await users.names()) {
      const account = await users.get(user);
      const isService = account !== undefined && isServiceOf(account, group);
      for (const key of await apiKeys.list(user)) {
        if (!isService && key.group !== group) continue;
        const before = { name: key.name, created_at: new Date(key.createdAt), group };
        try {
          await apiKeys.revoke(user, key.id);
        } finally {
          await audit.record(actor, { action: "api_key.revoked", user, subject: key.id, before, after: null });
        }
      }
    }
    await archiveService(actor, group);
  }

  /** Archives the service account of a group, if it has one. */
  async function archiveService(actor: Actor, group: string): Promise<void> {
    const own = await users.get(serviceNameOf(group));
    if (own === undefined || !isServiceOf(own, group)) return;
    try {
      await userAdmin.archive(actor, own.username);
    } catch (error) {
      // Another call was faster.
      if ((await users.get(own.username)) !== undefined) throw error;
    }
  }

  return {
    list: async () => groups.list(),
    get: find,
    async create(actor, name, fields) {
      checkPriced(fields.limits ?? [], [], config());
      const group = await groups.create(name, fields);
      await audit.record(actor, {
        action: "group.created",
        user: null,
        subject: name,
        before: null,
        after: groupView(group),
      });
      return group;
    },
    change,
    async remove(actor, name, isMeant) {
      let before: ReturnType<typeof groupView> = {};
      const isGone = await groups.remove(
        name,
        () => endAccess(actor, name),
        (group) => {
          checkMeant(group, isMeant);
          before = groupView(group);
        },
      );
      if (!isGone) throw noSuchGroup(name);
      await audit.record(actor, { action: "group.removed", user: null, subject: name, before, after: null });
    },
    async addMember(actor, name, user, isMeant) {
      await findUser(users, user);
      const patchOf = ({ listed }: Group) => (listed.includes(user) ? {} : { members: [...listed, user] });
      await change(actor, name, patchOf, isMeant);
    },
    async removeMember(actor, name, user, isMeant) {
      const member = checkUserName(user);
      const patchOf = ({ listed }: Group) =>
        listed.includes(member) ? { members: listed.filter((one) => one !== member) } : {};
      await change(actor, name, patchOf, isMeant);
    },
    async createKey(actor, user, settings) {
      const account = await findUser(users, user);
      if (settings.group !== undefined) {
        const group = await groups.get(settings.group);
        if (group === undefined) {
          throw new AppError("invalid_request", { param: "group", message: "group: expected the name of a group." });
        }
        checkMember(group, account, "group");
      }
      return createKey(actor, account, settings);
    },
    async createGroupKey(actor, name, user, settings) {
      const group = await find(name);
      const account = user === undefined ? await serviceAccountOf(actor, group) : await findUser(users, user);
      checkMember(group, account, "user");
      try {
        return await createKey(actor, account, { ...settings, group: name });
      } catch (error) {
        // A removal that has looked for the account before it was there must not leave it behind.
        if (user === undefined && (await groups.get(name)) === undefined) await archiveService(actor, name);
        throw error;
      }
    },
  };
}

/** Whether a group is the reason why a user could not be added: it is gone, of the config, or full. */
export function cannotTakeMember(error: unknown): boolean {
  return error instanceof AppError && ["not_found", "conflict", "invalid_request"].includes(error.code);
}

interface LastingKeyOptions {
  readonly users: Pick<Users, "get">;
  readonly groups: Pick<Groups, "get">;
  readonly apiKeys: Pick<ApiKeys, "create" | "revoke">;
  /** The config in force. */
  readonly config: () => PricedConfig;
}

/**
 * Makes a key. Where its user, or the group that it is bound to, is removed meanwhile, nothing is left of it: in a new
 * group of the name it would be in force again, and a new user of the name would find it in the list.
 *
 * @throws AppError `conflict`, `invalid_request` (limits that nothing would count for), or as `ApiKeys.create`
 */
export async function createLastingKey(
  { users, groups, apiKeys, config }: LastingKeyOptions,
  account: Account,
  settings: NewApiKey,
): Promise<CreatedApiKey> {
  checkPriced(settings.limits ?? [], [], config());
  const created = await apiKeys.create(account, settings);
  const { group } = settings;
  const { username, created_at: since } = account;
  // A removal takes the user or group out of use first, then looks for the keys: either it finds this one, or this is seen.
  const now = await users.get(username);
  const isGone = now?.created_at?.getTime() !== since?.getTime() || now === undefined;
  if (!isGone && (group === undefined || (await groups.get(group)) !== undefined)) return created;
  await apiKeys.revoke(username, created.key.id);
  if (isGone) throw new AppError("conflict", { message: `The user ${username} has been removed meanwhile.` });
  throw new AppError("conflict", { param: "group", message: `The group ${group} has been removed meanwhile.` });
}

/** The user name of the account that stands for a group. */
function serviceNameOf(group: string): string {
  return `svc-${group}`.slice(0, 32);
}

function isServiceOf(account: Account, group: string): boolean {
  return account.service === true && account.default_group === group;
}

/** A strong entity tag (RFC 9110, 8.8.3), including its quotes: it changes with everything that administrators set. */
export function groupEtag(group: Group): string {
  const text = JSON.stringify([group.name, group.origin, groupView(group)]);
  return `"${createHash("sha256").update(text).digest("base64url").slice(0, 22)}"`;
}

function checkMeant(group: Group, isMeant: Precondition | undefined): void {
  if (isMeant?.(groupEtag(group)) === false) throw new AppError("precondition_failed");
}

/** A group as the audit log shows it; the keys are those of requests. */
function groupView(group: Group): Readonly<Record<string, unknown>> {
  const { description, listed, owners, limits, rates, models, maxParallel } = group;
  return { description, members: listed, owners, limits, rates, models, max_parallel: maxParallel };
}
