import { AppError } from "../errors.ts";
import type { Account } from "./account-schema.ts";

/**
 * Checks whether an account may be used now. Cheap: every request comes here.
 *
 * @param now ms since the epoch
 * @throws AppError `account_disabled` with details `{reason: "disabled" | "not_yet_active" | "expired" | "banned",
 *   at?, ban_reason?}`; `at` is when that changed or will change
 */
export function checkUsable(account: Account, now: number): void {
  const { is_active, active_from, expires_at, banned_until, ban_reason } = account;
  if (!is_active) throw refusal({ reason: "disabled" });
  if (active_from !== undefined && now < active_from.getTime()) {
    throw refusal({ reason: "not_yet_active", at: iso(active_from) }, "This account is not active yet.");
  }
  if (expires_at !== undefined && now >= expires_at.getTime()) {
    throw refusal({ reason: "expired", at: iso(expires_at) }, "This account has expired.");
  }
  if (banned_until !== undefined && now < banned_until.getTime()) {
    const why = ban_reason === undefined ? {} : { ban_reason };
    throw refusal({ reason: "banned", at: iso(banned_until), ...why }, "This account is banned for a time.");
  }
}

function refusal(details: Readonly<Record<string, string>>, message?: string): AppError {
  return new AppError("account_disabled", { details, ...(message === undefined ? {} : { message }) });
}

/** TOML's dates keep the offset they were written with; the answer has UTC. */
function iso(date: Date): string {
  return new Date(date.getTime()).toISOString();
}
