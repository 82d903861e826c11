import { AppError } from "../errors.ts";
import type { BucketState, Charge } from "./ledger.ts";
import { metrics } from "./metrics.ts";
import { periods } from "./periods.ts";

/**
 * The 402 for a limit without room. Its details are `{metric, per, used, reserved, limit, requested, reset_at}`, plus
 * `api_key`, its id, if it is a limit of that key, or `group`, its name, if it is one of that group: integers for
 * requests or tokens; for cost decimal strings in units of `currency`, which is then included. `reset_at` is ISO 8601
 * in UTC, or null if the limit never resets.
 */
export function quotaExceeded(bucket: BucketState, request: Charge): AppError {
  const { limit, used, reserved, resetAt } = bucket;
  const { format, hasCurrency } = metrics[limit.metric];
  const resetAtIso = resetAt === null ? null : new Date(resetAt).toISOString();
  const unit = hasCurrency ? (limit.currency ?? "") : limit.metric;
  const held = reserved > 0 ? `, ${format(reserved)} more held by requests that are running` : "";
  const through =
    limit.group !== undefined
      ? ` by the group ${limit.group}`
      : limit.apiKey !== undefined
        ? " through this API key"
        : "";
  const short = used < limit.max ? ` This one may need ${format(request[limit.metric])}.` : "";
  return new AppError("quota_exceeded", {
    message:
      `${format(used)} of ${format(limit.max)} ${unit}${periods[limit.per].label} are used${through}${held}.${short} ` +
      (resetAtIso === null ? "This limit does not reset." : `The quota resets at ${resetAtIso}.`),
    details: { ...quotaDetails(bucket), requested: format(request[limit.metric]) },
    // A client's automatic retry cannot succeed before the reset.
    shouldRetry: false,
  });
}

/** What the errors of a limit without room say about it, but for what was requested. */
export function quotaDetails({ limit, used, reserved, resetAt }: BucketState): Readonly<Record<string, unknown>> {
  const { format } = metrics[limit.metric];
  return {
    metric: limit.metric,
    per: limit.per,
    ...(limit.apiKey === undefined ? {} : { api_key: limit.apiKey }),
    ...(limit.group === undefined ? {} : { group: limit.group }),
    ...(limit.currency === undefined ? {} : { currency: limit.currency }),
    used: format(used),
    reserved: format(reserved),
    limit: format(limit.max),
    reset_at: resetAt === null ? null : new Date(resetAt).toISOString(),
  };
}
