import { createHash } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import type { Account, Role } from "../identity/account-schema.ts";
import type { GrantConfig, LimitConfig } from "../config/schema.ts";
import { isoOfInstant } from "../lib/wall-clock.ts";

/** A user as administrators see it: the user file without its hash, as JSON. Dates are ISO 8601. */
export interface UserView {
  readonly username: string;
  readonly quota_tier: string;
  readonly roles: readonly Role[];
  readonly is_active: boolean;
  readonly active_from: string | null;
  readonly expires_at: string | null;
  readonly banned_until: string | null;
  readonly ban_reason: string | null;
  readonly must_change_password: boolean;
  /** null: concurrency.max_parallel. */
  readonly max_parallel: number | null;
  readonly limits: readonly LimitConfig[];
  /** `until` as in the file, with or without an offset. */
  readonly grants: readonly (Omit<GrantConfig, "until"> & { readonly until?: string })[];
  /** Dates, integers above 2^53 and numbers that JSON can't represent are strings. */
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly created_at: string | null;
}

export function userView(account: Account): UserView {
  const { username, quota_tier, roles, is_active, max_parallel = null, limits = [], grants = [] } = account;
  const { active_from, expires_at, banned_until, ban_reason = null, must_change_password = false } = account;
  return {
    username,
    quota_tier,
    roles,
    is_active,
    active_from: utc(active_from),
    expires_at: utc(expires_at),
    banned_until: utc(banned_until),
    ban_reason,
    must_change_password,
    max_parallel,
    limits,
    grants: grants.map(({ until, ...grant }) => ({
      ...grant,
      ...(until === undefined ? {} : { until: until.toISOString() }),
    })),
    metadata: toJson(account.metadata) as UserView["metadata"],
    created_at: utc(account.created_at),
  };
}

/**
 * A strong entity tag (RFC 9110, 8.8.3), including its quotes: it changes with everything that is shown and with the
 * password, and reveals nothing of the hash.
 */
export function userEtag(account: Account): string {
  const text = JSON.stringify([userView(account), account.token_version]);
  return `"${createHash("sha256").update(text).digest("base64url").slice(0, 22)}"`;
}

/** The differences between two accounts, before and after. */
export interface UserDifference {
  readonly before: Readonly<Record<string, unknown>>;
  readonly after: Readonly<Record<string, unknown>>;
}

/** The fields of the view that differ. */
export function userDifference(before: Account, after: Account): UserDifference {
  const [was, is] = [Object.entries(userView(before)), Object.entries(userView(after))];
  const changed = is.filter(([, value], at) => !isDeepStrictEqual(value, was[at]?.[1])).map(([key]) => key);
  const part = (entries: readonly [string, unknown][]) =>
    Object.fromEntries(entries.filter(([key]) => changed.includes(key)));
  return { before: part(was), after: part(is) };
}

/** TOML dates keep the offset they were written with; here they are in UTC. */
function utc(date: Date | undefined): string | null {
  return date === undefined ? null : isoOfInstant(date.getTime());
}

function toJson(value: unknown): unknown {
  if (typeof value === "bigint") return String(value);
  if (typeof value === "number") return Number.isFinite(value) ? value : String(value);
  if (value instanceof Date) return value.toISOString();
  if (Array.isArray(value)) return value.map(toJson);
  if (typeof value !== "object" || value === null) return value;
  // Not by assignment: a TOML key may be __proto__.
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, toJson(inner)]));
}
