import { randomBytes } from "node:crypto";
import type { OidcIssuerConfig } from "../config/schema.ts";
import { AppError } from "../errors.ts";
import type { Account } from "../identity/account-schema.ts";
import { checkUsable, createAddressCheck } from "../identity/account-state.ts";
import type { ExternalIdentity, ExternalLogins } from "../identity/external-logins.ts";
import type { Groups } from "../identity/groups.ts";
import { type Claims, groupsFrom, isMatched, rolesFrom, userNameFrom } from "../identity/oidc/claims.ts";
import type { Origin } from "../identity/sessions.ts";
import type { Users } from "../identity/users.ts";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import type { Actor, Audit } from "./audit.ts";
import type { NameHolder } from "./free-names.ts";
import { cannotTakeMember, type GroupAdmin } from "./group-admin.ts";
import type { UserAdmin } from "./user-admin.ts";

/** Somebody who has come from an identity provider, which has been checked. */
interface Arrival {
  readonly issuer: OidcIssuerConfig;
  readonly identity: ExternalIdentity;
  readonly claims: Claims;
  readonly origin: Origin;
}

/**
 * The accounts of those who come from identity providers. Who somebody is depends on issuer and sub alone, never on a
 * name or an address of mail.
 */
export interface OidcAccounts {
  /**
   * The account that an identity is linked to, or a new one if the issuer's rules allow that, with the roles and groups
   * that its rules give now.
   *
   * @throws AppError `oidc_no_account`, `oidc_name_taken`, `account_disabled`, `address_not_allowed`,
   * `storage_unavailable`
   */
  enter(arrival: Arrival): Promise<Account>;
  /** Links an identity to an account. @throws AppError `conflict`, `storage_unavailable` */
  link(account: Account, arrival: Pick<Arrival, "identity" | "origin">): Promise<void>;
  /** @throws AppError `not_found`, `storage_unavailable` */
  unlink(account: Account, identity: ExternalIdentity, origin: Origin): Promise<void>;
}

export interface OidcAccountsOptions {
  readonly externalLogins: Pick<ExternalLogins, "get" | "link" | "unlink">;
  readonly users: Pick<Users, "get">;
  readonly userAdmin: Pick<UserAdmin, "create" | "patch" | "archive">;
  readonly groups: Pick<Groups, "get">;
  readonly groupAdmin: Pick<GroupAdmin, "addMember" | "removeMember">;
  readonly holderOf: NameHolder;
  readonly audit: Audit;
  readonly clock: Clock;
  readonly log: Log;
}

export function createOidcAccounts(options: OidcAccountsOptions): OidcAccounts {
  const { externalLogins, users, userAdmin, groups, groupAdmin, holderOf, audit, clock, log } = options;
  const checkAddress = createAddressCheck();

  /** The account of an identity; undefined if there is none, or the link was one to an earlier user of the name. */
  async function linkedAccount(identity: ExternalIdentity): Promise<Account | undefined> {
    const login = await externalLogins.get(identity);
    if (login === undefined) return undefined;
    const account = await users.get(login.user);
    return account !== undefined && login.linkedAt >= (account.created_at?.getTime() ?? 0) ? account : undefined;
  }

  /** What the log says of somebody who gets no account, since the page says less. */
  function refused(
    { issuer, identity: { sub } }: Arrival,
    code: "oidc_no_account" | "oidc_name_taken",
    reason: string,
  ) {
    log.warn({ issuer: issuer.name, sub, reason }, "a new user got no account");
    return new AppError(code);
  }

  /** A name that nobody holds, for somebody who may have an account. */
  async function freeName(arrival: Arrival): Promise<string> {
    const { issuer, claims } = arrival;
    const { create_users: rule, username_claim: claim } = issuer;
    if (rule === "never") throw refused(arrival, "oidc_no_account", "create_users is never, and no account is linked");
    if (rule === "matched" && !isMatched(issuer, claims))
      throw refused(arrival, "oidc_no_account", "none of the rules for roles and groups fits");
    const name = userNameFrom(issuer, claims);
    if (name === undefined)
      throw refused(arrival, "oidc_no_account", `${claim} gives no user name that can be used here`);
    const holder = await holderOf(name);
    if (holder === undefined) return name;
    const way =
      holder === "user"
        ? "who has that account links the login on the Account page"
        : "to let them in, an administrator makes the account";
    throw refused(arrival, "oidc_name_taken", `the name ${name} is that of a ${holder}: ${way}`);
  }

  async function createAccount(arrival: Arrival): Promise<Account> {
    const { issuer, identity, claims, origin } = arrival;
    const username = await freeName(arrival);
    const actor = actorOf(issuer, origin);
    const roles = rolesFrom(issuer, claims);
    const { account } = await userAdmin
      .create(actor, {
        username,
        quota_tier: issuer.tier,
        roles,
        // Nobody knows it: an administrator can set another.
        password: randomBytes(32).toString("base64url"),
      })
      .catch((error: unknown) => {
        throw isCode(error, "conflict") ? refused(arrival, "oidc_name_taken", `the name ${username} is taken`) : error;
      });
    try {
      await linkTo(account, identity);
    } catch (error) {
      // Without its link it would only hold the name.
      await userAdmin.archive(actor, username).catch((err: unknown) => {
        log.error({ user: username, err }, "a new user could not be linked, nor archived: archive it by hand");
      });
      throw error;
    }
    return account;
  }

  async function linkTo(account: Account, { issuer, sub }: ExternalIdentity): Promise<void> {
    const before = await externalLogins.get({ issuer, sub });
    if (before !== undefined && (await linkedAccount(before)) === undefined) {
      await externalLogins.unlink(before.user, before);
    }
    const linkedAt = Math.max(clock.now(), account.created_at?.getTime() ?? 0);
    await externalLogins.link({ issuer, sub, user: account.username, linkedAt });
  }

  /** Where the issuer has rules for roles, they are what it says now. The last admin stays one. */
  async function setRoles(account: Account, { issuer, claims, origin }: Arrival): Promise<Account> {
    const roles = rolesFrom(issuer, claims);
    if (roles === undefined || isSameSet(roles, account.roles)) return account;
    try {
      return await userAdmin.patch(actorOf(issuer, origin), account.username, { roles });
    } catch (error) {
      if (!isCode(error, "conflict")) throw error;
      log.warn(
        { user: account.username, issuer: issuer.name },
        "the last admin keeps that role, whatever the issuer says",
      );
      return account;
    }
  }

  async function setGroups({ username }: Account, { issuer, claims, origin }: Arrival): Promise<void> {
    const actor = actorOf(issuer, origin);
    for (const [name, isWanted] of groupsFrom(issuer, claims)) {
      const group = await groups.get(name);
      if (group?.origin !== "admin") {
        log.warn(
          { group: name, issuer: issuer.name },
          "a rule of [[oidc]] names a group that administrators have not made",
        );
        continue;
      }
      if (isWanted === group.listed.includes(username)) continue;
      if (isWanted) await join(actor, name, username);
      else await groupAdmin.removeMember(actor, name, username);
    }
  }

  /** Who can't be added comes in all the same, with less. */
  async function join(actor: Actor, group: string, user: string): Promise<void> {
    try {
      await groupAdmin.addMember(actor, group, user);
    } catch (error) {
      if (!cannotTakeMember(error)) throw error;
      log.warn({ user, group, err: error }, "a user could not be added to the group of a rule of [[oidc]]");
    }
  }

  return {
    async enter(arrival) {
      const { identity, origin } = arrival;
      const found = (await linkedAccount(identity)) ?? (await createAccount(arrival));
      if (found.service === true) throw new AppError("oidc_no_account");
      checkUsable(found, clock.now());
      checkAddress(found, origin.ip);
      // Before the session: nobody comes in with rights that the issuer has taken away.
      const account = await setRoles(found, arrival);
      await setGroups(account, arrival);
      return account;
    },
    async link(account, { identity, origin }) {
      const linked = await linkedAccount(identity);
      if (linked?.username === account.username) return;
      await linkTo(account, identity);
      await audit.record(
        { by: account.username, ip: origin.ip, traceId: origin.traceId },
        { action: "user.login_linked", user: account.username, before: null, after: { ...identity } },
      );
    },
    async unlink(account, { issuer, sub }, origin) {
      const identity = { issuer, sub };
      if (!(await externalLogins.unlink(account.username, identity))) throw new AppError("not_found");
      await audit.record(
        { by: account.username, ip: origin.ip, traceId: origin.traceId },
        { action: "user.login_unlinked", user: account.username, before: identity, after: null },
      );
    },
  };
}

function actorOf({ name }: OidcIssuerConfig, { ip, traceId }: Origin): Actor {
  return { by: `oidc:${name}`, ip, traceId };
}

function isCode(error: unknown, code: AppError["code"]): boolean {
  return error instanceof AppError && error.code === code;
}

function isSameSet(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((one) => b.includes(one));
}
