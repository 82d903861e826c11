import type { AppError } from "../errors.ts";
import type { ProxyEvent } from "../events/types.ts";
import type { ChatRun } from "./chat-run.ts";

/** The event behind a refusal that operators count on its own: a limit or a quota; null for any other error. */
export function refusalEvent(run: ChatRun, error: AppError, at: number): ProxyEvent | null {
  const { account, ip, client } = run.call;
  const base = { at, traceId: client.traceId, ip, user: account.username };
  const { details = {} } = error.extras;
  const { code } = error;
  if (code === "quota_exceeded") {
    return { type: "quota.exceeded", ...base, metric: String(details.metric), per: String(details.per) };
  }
  if (code === "rate_limited") return { type: "rate_limit.rejected", ...base, rule: String(details.rule) };
  if (code === "concurrency_exceeded") return { type: "rate_limit.rejected", ...base, rule: "concurrency" };
  return null;
}
