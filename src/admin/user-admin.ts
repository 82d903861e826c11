import type { Account } from "../identity/account-schema.ts";
import { accountState } from "../identity/account-state.ts";
import type { NewAccount, UserPage, UserQuery, Users } from "../identity/users.ts";
import type { ApiKeys } from "../identity/api-keys.ts";
import type { ExternalLogins } from "../identity/external-logins.ts";
import { checkNewPassword, generatePassword } from "../identity/passwords/new-password.ts";
import { createKeyedQueue } from "../identity/files/keyed-queue.ts";
import type { Sessions } from "../identity/sessions.ts";
import { type FieldChanges, viewOf } from "../identity/user-fields.ts";
import { checkUserName } from "../identity/user-name.ts";
import { AppError } from "../errors.ts";
import type { AdminChanged } from "../events/catalogue.ts";
import type { Awaitable } from "../lib/awaitable.ts";
import type { Clock } from "../lib/clock.ts";
import type { Actor, Audit } from "./audit.ts";
import { findUser } from "./find-user.ts";
import { checkPriced, type PricedConfig } from "./priced-limits.ts";
import { userDifference, userEtag, type UserDifference } from "./user-view.ts";

/** A new user. Without a password a one-time one is created; the default tier is the first of config.toml. */
export type NewUser = Omit<NewAccount, "password" | "quota_tier" | "must_change_password"> & {
  readonly password?: NewAccount["password"] | undefined;
  readonly quota_tier?: string | undefined;
};

/** Changes to a user; absent fields stay, null removes. Ending a ban also removes its reason. */
export type UserPatch = FieldChanges;

/** Whether the administrator's precondition accepts the user's current entity tag. */
type Precondition = (etag: string) => boolean;

/** A user and the generated password, to be shown once; undefined if one was given. */
interface UserWithPassword {
  readonly account: Account;
  readonly password: string | undefined;
}

/**
 * Manages users, for the API and the command line. Each change is in the audit log when it resolves, with the fields
 * that differ; a call that changes nothing is not audited.
 *
 * All throw AppError `invalid_request` (it names the field), `not_found`, `conflict` (the name is taken, the file is
 * invalid, or no admin would be left), `precondition_failed` or `storage_unavailable`.
 */
export interface UserAdmin {
  list(query: UserQuery): Promise<UserPage>;
  get(name: string): Promise<Account>;
  create(actor: Actor, user: NewUser): Promise<UserWithPassword>;
  /** @param patch the changes, or a function that computes them from the user's current file */
  patch(
    actor: Actor,
    name: string,
    patch: UserPatch | ((account: Account) => UserPatch),
    isMeant?: Precondition,
  ): Promise<Account>;
  /** Sets a chosen password. Ends the user's sessions. */
  setPassword(actor: Actor, name: string, password: string): Promise<Account>;
  /** Creates a one-time password, which only allows setting another. Ends the user's sessions. */
  resetPassword(actor: Actor, name: string, isMeant?: Precondition): Promise<UserWithPassword>;
  /** Removes a user's second factor, such as a lost one. @throws AppError `not_found` also where there is none */
  removeSecondFactor(actor: Actor, name: string, reason?: string): Promise<void>;
  /**
   * Takes a user out of use: sessions, keys and linked logins end, the file goes to users/.archive/. Usage and used
   * quota stay with the name: a new user of that name gets neither the old keys nor a fresh quota.
   */
  archive(actor: Actor, name: string, isMeant?: Precondition): Promise<void>;
}

export interface UserAdminOptions {
  readonly users: Pick<Users, "get" | "search" | "create" | "update" | "archive">;
  readonly sessions: Pick<Sessions, "endAll">;
  readonly apiKeys: Pick<ApiKeys, "revokeAll">;
  readonly externalLogins: Pick<ExternalLogins, "unlinkAll">;
  readonly audit: Audit;
  /** The tiers of config.toml now. */
  readonly tierNames: () => readonly string[];
  /** The trust steps of config.toml now. */
  readonly stepNames: () => readonly string[];
  /** The config in force. */
  readonly config: () => PricedConfig;
  readonly clock: Clock;
}

const nothing: UserDifference = { before: {}, after: {} };

/** Users of a page, while another admin is looked for. */
const adminsAtOnce = 100;

export function createUserAdmin(options: UserAdminOptions): UserAdmin {
  const { users, sessions, apiKeys, externalLogins, audit, tierNames, stepNames, clock } = options;
  const queue = createKeyedQueue();
  /** One change after another: the check that another admin is left must hold until the change is written. */
  const inTurn = <T>(change: () => Awaitable<T>): Promise<T> => queue.run("", async () => change());

  function checkMeant(account: Account, isMeant: Precondition | undefined): void {
    if (isMeant?.(userEtag(account)) === false) throw new AppError("precondition_failed");
  }

  /** A step that the config does not have pins nobody. One from before a change of the config may stay. */
  function checkStep(step: string | undefined, before?: string): void {
    if (step === undefined || step === before || stepNames().includes(step)) return;
    const message = `trust_step: expected one of ${stepNames().join(", ")}; got ${JSON.stringify(step)}.`;
    throw new AppError("invalid_request", { param: "trust_step", message });
  }

  async function keepAnAdmin(before: Account, after?: Account): Promise<void> {
    // A service account can't log in, and no API key reaches the administration.
    const isAdmin = (account: Account | undefined): boolean =>
      account?.roles.includes("admin") === true &&
      account.service !== true &&
      accountState(account, clock.now()) === "active";
    if (!isAdmin(before) || isAdmin(after)) return;
    const { username } = before;
    let cursor: string | undefined;
    do {
      const page: UserPage = await users.search({ role: "admin", state: "active", limit: adminsAtOnce, cursor });
      if (page.users.some((other) => other.username !== username && isAdmin(other))) return;
      cursor = page.nextCursor ?? undefined;
    } while (cursor !== undefined);
    throw new AppError("conflict", {
      message: `${username} is the last admin who can come in: make another one first.`,
    });
  }

  async function changePassword(actor: Actor, name: string, password: string, once: boolean, isMeant?: Precondition) {
    await audit.check();
    let difference = nothing;
    const patch = { password, must_change_password: once ? true : null };
    const account = await inTurn(() =>
      users.update(name, patch, (before, after) => {
        checkMeant(before, isMeant);
        difference = userDifference(before, after);
      }),
    );
    // Tokens of the old password are refused from now on, even if the sessions can't be written.
    await Promise.resolve(sessions.endAll(name)).catch(() => undefined);
    await audit.record(actor, { action: "user.password_reset", user: name, ...difference });
    return account;
  }

  return {
    list: async (query) => users.search(query),
    get: (name) => findUser(users, name),
    async create(actor, { password, quota_tier = tierNames()[0] ?? "", ...user }) {
      const username = checkUserName(user.username);
      if (typeof password === "string") checkNewPassword(password, username, "password");
      checkServiceGroup(user);
      checkStep(user.trust_step);
      checkPriced(user.limits ?? [], [], options.config());
      await audit.check();
      const made = password === undefined ? generatePassword() : undefined;
      const secret = made === undefined ? { password: password ?? "" } : { password: made, must_change_password: true };
      const account = await inTurn(() => users.create({ ...user, quota_tier, ...secret }));
      await audit.record(actor, {
        action: "user.created",
        user: username,
        before: null,
        after: { ...viewOf(account) },
      });
      return { account, password: made };
    },
    async patch(actor, name, patch, isMeant) {
      let difference = nothing;
      const patchOf = (account: Account) => withBanEnded(typeof patch === "function" ? patch(account) : patch);
      const account = await inTurn(() =>
        users.update(name, patchOf, async (before, after) => {
          checkMeant(before, isMeant);
          // A file that was written by hand may lack the group: that keeps nobody from changing something else.
          if (lacksGroup(after) && !lacksGroup(before)) checkServiceGroup(after);
          checkStep(after.trust_step, before.trust_step);
          checkPriced(after.limits ?? [], before.limits ?? [], options.config());
          await keepAnAdmin(before, after);
          difference = userDifference(before, after);
        }),
      );
      if (Object.keys(difference.after).length > 0) {
        const reason = "banned_until" in difference.after ? (account.ban_reason ?? "") : "";
        await audit.record(actor, { action: "user.changed", user: name, ...difference, reason });
      }
      return account;
    },
    async setPassword(actor, name, password) {
      checkNewPassword(password, name, "password");
      return changePassword(actor, name, password, false);
    },
    async resetPassword(actor, name, isMeant) {
      const password = generatePassword();
      return { account: await changePassword(actor, name, password, true, isMeant), password };
    },
    async removeSecondFactor(actor, name, reason = "") {
      await inTurn(() =>
        users.update(name, ({ totp_secret: secret }) => {
          if (secret === undefined) throw new AppError("not_found", { message: "This user has no second factor." });
          return { totp_secret: null, totp_last_step: null, recovery_codes: null };
        }),
      );
      const action = "user.second_factor_removed";
      await audit.record(actor, { action, user: name, before: null, after: null, reason });
    },
    async archive(actor, name, isMeant) {
      const progress: { before: AdminChanged["before"]; isMoved: boolean } = { before: null, isMoved: false };
      const check = async (account: Account): Promise<void> => {
        checkMeant(account, isMeant);
        await keepAnAdmin(account);
        progress.before = { ...viewOf(account) };
      };
      const endAccess = () => {
        progress.isMoved = true;
        return Promise.all([sessions.endAll(name), apiKeys.revokeAll(name), externalLogins.unlinkAll(name)]);
      };
      const record = () =>
        audit.record(actor, { action: "user.archived", user: name, before: progress.before, after: null });
      try {
        await inTurn(() => users.archive(name, check, endAccess));
      } catch (error) {
        // The user is gone although something of the rest could not be written.
        if (progress.isMoved) await record();
        throw error;
      }
      await record();
    },
  };
}

type ServiceFields = Pick<NewAccount, "service" | "default_group">;

function lacksGroup({ service, default_group }: ServiceFields): boolean {
  return service === true && default_group === undefined;
}

/** A service account counts for its default group alone: without one it could only use its tier's limits. */
function checkServiceGroup(fields: ServiceFields): void {
  if (!lacksGroup(fields)) return;
  const message = "default_group: expected the name of a group, because service is true; got none.";
  throw new AppError("invalid_request", { param: "default_group", message });
}

/** A leftover reason would be shown with the next ban. */
function withBanEnded(patch: UserPatch): UserPatch {
  return patch.banned_until === null ? { ban_reason: null, ...patch } : patch;
}
