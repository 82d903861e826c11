import { AppError } from "../errors.ts";
import { type AddressRules, createAddressRules } from "../lib/ip-list.ts";
import { isoOfInstant } from "../lib/wall-clock.ts";
import type { Account } from "./account-schema.ts";

export const accountStates = ["active", "disabled", "not_yet_active", "expired", "banned"] as const;
/** Whether an account may be used, and if not, why. */
export type AccountState = (typeof accountStates)[number];

/** @param now ms since the epoch */
export function accountState(account: Account, now: number): AccountState {
  const { is_active, active_from, expires_at, banned_until } = account;
  if (!is_active) return "disabled";
  if (active_from !== undefined && now < active_from.getTime()) return "not_yet_active";
  if (expires_at !== undefined && now >= expires_at.getTime()) return "expired";
  if (banned_until !== undefined && now < banned_until.getTime()) return "banned";
  return "active";
}

/**
 * Checks whether an account may be used now. Cheap: it runs for every request.
 *
 * @param now ms since the epoch
 * @throws AppError `account_disabled` with details `{reason: "disabled" | "not_yet_active" | "expired" | "banned", at?,
 * ban_reason?}`; `at` is when that changed or will change
 */
export function checkUsable(account: Account, now: number): void {
  const reason = accountState(account, now);
  if (reason === "active") return;
  const { active_from, expires_at, banned_until, ban_reason } = account;
  switch (reason) {
    case "disabled":
      throw refusal({ reason });
    case "not_yet_active":
      throw refusal({ reason, ...at(active_from) }, "This account is not active yet.");
    case "expired":
      throw refusal({ reason, ...at(expires_at) }, "This account has expired.");
    case "banned": {
      const why = ban_reason === undefined ? {} : { ban_reason };
      throw refusal({ reason, ...at(banned_until), ...why }, "This account is banned for a time.");
    }
  }
}

/**
 * Creates the check whether an account may be used from an address; it throws AppError `address_not_allowed`. The lists
 * of an account are prepared once, as long as it doesn't change.
 */
export function createAddressCheck(): (account: Account, ip: string) => void {
  const prepared = new WeakMap<Account, AddressRules>();
  return (account, ip) => {
    const { allow_addresses: allow, deny_addresses: deny } = account;
    if (allow === undefined && deny === undefined) return;
    let rules = prepared.get(account);
    if (rules === undefined) prepared.set(account, (rules = createAddressRules(allow ?? [], deny ?? [])));
    if (rules.allows(ip)) return;
    throw new AppError("address_not_allowed", { message: "This account may not be used from this address." });
  };
}

function refusal(details: Readonly<Record<string, string>>, message?: string): AppError {
  return new AppError("account_disabled", { details, ...(message === undefined ? {} : { message }) });
}

/** TOML dates keep the offset they were written with; responses use UTC. */
function at(date: Date | undefined): { readonly at?: string } {
  return date === undefined ? {} : { at: isoOfInstant(date.getTime()) };
}
