import { AppError } from "../errors.ts";
import { formatNano } from "../lib/money.ts";
import type { BucketState, Charge, Limit } from "./ledger.ts";

/**
 * The 402 for a limit without room. Its details are `{metric, per, used, reserved, limit, requested, reset_at}`,
 * with `api_key`, its id, where it is a limit of that key:
 * whole numbers of requests or tokens; for cost decimal strings in units of `currency`, which is then there too.
 * `reset_at` is ISO 8601 in UTC, or null where the limit never resets.
 */
export function quotaExceeded({ limit, used, reserved, resetAt }: BucketState, ask: Charge): AppError {
  const say = (amount: number) => (limit.metric === "cost" ? formatNano(amount) : amount);
  const resetAtIso = resetAt === null ? null : new Date(resetAt).toISOString();
  const unit = limit.metric === "cost" ? (limit.currency ?? "") : limit.metric;
  const held = reserved > 0 ? `, ${say(reserved)} more held by requests that are running` : "";
  const through = limit.apiKey === undefined ? "" : " through this API key";
  const short = used < limit.max ? ` This one may need ${say(ask[limit.metric])}.` : "";
  return new AppError("quota_exceeded", {
    message:
      `${say(used)} of ${say(limit.max)} ${unit}${spans[limit.per]} are used${through}${held}.${short} ` +
      (resetAtIso === null ? "This limit does not reset." : `The quota resets at ${resetAtIso}.`),
    details: {
      metric: limit.metric,
      per: limit.per,
      ...(limit.apiKey === undefined ? {} : { api_key: limit.apiKey }),
      ...(limit.currency === undefined ? {} : { currency: limit.currency }),
      used: say(used),
      reserved: say(reserved),
      limit: say(limit.max),
      requested: say(ask[limit.metric]),
      reset_at: resetAtIso,
    },
    // A client's automatic retry cannot help before the reset.
    shouldRetry: false,
  });
}

const spans: Record<Limit["per"], string> = { day: " today", week: " this week", month: " this month", total: "" };
