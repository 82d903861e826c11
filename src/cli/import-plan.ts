import type { NewAccount } from "../identity/users.ts";
import { checkNewPassword, checkPasswordLength, generatePassword } from "../identity/passwords/new-password.ts";
import { isUserName } from "../identity/user-name.ts";
import { createWallClock } from "../lib/wall-clock.ts";
import type { Tiers } from "../quota/tiers.ts";
import type { OldQuota, OldUser, Predecessor } from "./predecessor.ts";

/** The plan for one user of the predecessor. */
export interface ImportRow {
  readonly name: string;
  readonly tier: string;
  /** Requests that count as used in the running month. */
  readonly used: number;
  /** undefined if nothing is imported: the user exists, or there is a problem. */
  readonly account: NewAccount | undefined;
  /** A new password, to be shown once; undefined if the old one is kept. */
  readonly newPassword: string | undefined;
  /** Why a user that should be imported can't be. */
  readonly problem: string | undefined;
  /** Remarks for the operator. */
  readonly notes: readonly string[];
}

/** The context of the plan. */
export interface ImportRules {
  readonly tiers: Tiers;
  /** quota.timezone, which applies to times without an offset. */
  readonly timezone: string;
  /** ms since the epoch. */
  readonly now: number;
  /** Whether there is an account of that name, or a file that might be one. */
  readonly exists: (name: string) => boolean;
}

/** Plans the import of each user independently. Changes nothing. */
export function planImport(old: Predecessor, rules: ImportRules): readonly ImportRow[] {
  return old.users.map((user) => {
    const base = { name: user.username, tier: user.quota_tier, used: 0, account: undefined, newPassword: undefined };
    if (rules.exists(user.username)) return { ...base, problem: undefined, notes: ["exists already: left as it is"] };
    const problem = problemOf(user, old, rules);
    if (problem !== undefined) return { ...base, problem, notes: [] };
    const quota = old.quotas.get(user.username);
    const { used, note, wrong } = usedNow(quota, rules);
    if (wrong !== undefined) return { ...base, problem: wrong, notes: [] };
    const limit = ownLimit(user, quota, rules.tiers);
    const { password, isNew, mustChange } = passwordOf(user);
    const notes = [
      ...(note === undefined ? [] : [note]),
      ...(limit === undefined ? [] : [`keeps a limit of ${limit} requests a month`]),
      ...(quota?.tier === undefined || quota.tier === user.quota_tier ? [] : ["the quota file names another tier"]),
      ...(user.is_active ? [] : ["disabled"]),
      ...(isNew ? ["gets a new password: the old one has fewer than 8 bytes or more than 1024"] : []),
      ...(mustChange ? ["must choose another password"] : []),
    ];
    const account: NewAccount = {
      username: user.username,
      password,
      quota_tier: user.quota_tier,
      is_active: user.is_active,
      metadata: user.metadata,
      ...(mustChange ? { must_change_password: true } : {}),
      ...(limit === undefined ? {} : { limits: [{ metric: "requests", per: "month", max: limit }] }),
    };
    return { ...base, used, account, newPassword: isNew ? password : undefined, problem: undefined, notes };
  });
}

function problemOf({ username, quota_tier }: OldUser, old: Predecessor, { tiers }: ImportRules): string | undefined {
  if (!isUserName(username)) return "the name has other characters than a-z, 0-9, - and _, or is too long";
  if (tiers.limitsOf(quota_tier) === undefined) return `config.toml has no such tier: ${tiers.names.join(", ")}`;
  // Without it the user would start at zero.
  if (old.badQuotas.has(username)) return "the quota file cannot be used";
  return undefined;
}

/** What counts as used in the running month: nothing if the predecessor's month is over. */
function usedNow(quota: OldQuota | undefined, { timezone, now }: ImportRules) {
  if (quota === undefined) return { used: 0, note: "has no quota file: begins at zero" };
  const { used_count: used, reset_at: resetAt } = quota;
  if (resetAt == null || used === 0) return { used };
  const at = instantOf(resetAt, timezone);
  if (Number.isNaN(at)) return { used, wrong: "reset_at of the quota file is no time" };
  return at <= now ? { used: 0, note: "the month of the quota file is over: begins at zero" } : { used };
}

/** An ISO time in ms since the epoch; the time zone applies if it has no offset. NaN if invalid. */
function instantOf(text: string, timezone: string): number {
  const [, date, time = "00:00:00", offset] =
    /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)?)?$/.exec(text.trim()) ?? [];
  if (date === undefined) return NaN;
  const reading = Date.parse(`${date}T${time}${offset ?? "Z"}`);
  return offset !== undefined || Number.isNaN(reading) ? reading : createWallClock(timezone).instantOf(reading);
}

/** The monthly limit if it differs from the tier's. */
function ownLimit({ quota_tier }: OldUser, quota: OldQuota | undefined, tiers: Tiers): number | undefined {
  if (quota === undefined) return undefined;
  const ofTier = tiers.limitsOf(quota_tier)?.find(({ metric, per }) => metric === "requests" && per === "month");
  return ofTier?.max === quota.monthly_limit ? undefined : quota.monthly_limit;
}

/** A password that would be invalid here is replaced; a common one must be changed at login. */
function passwordOf({ username, password }: OldUser) {
  if (
    !passes(() => {
      checkPasswordLength(password, "password");
    })
  ) {
    return { password: generatePassword(), isNew: true, mustChange: true };
  }
  const isGood = passes(() => {
    checkNewPassword(password, username, "password");
  });
  return { password, isNew: false, mustChange: !isGood };
}

function passes(check: () => void): boolean {
  try {
    check();
    return true;
  } catch {
    return false;
  }
}
