import type { AppError } from "../errors.ts";
import type { ProxyEvent } from "../events/types.ts";
import type { ChatRun } from "./chat-run.ts";

/** The event behind a refusal that operators count on its own: a limit or a quota; null for any other error. */
export function refusalEvent(run: ChatRun, error: AppError, at: number): ProxyEvent | null {
  const { account, ip, client } = run.call;
  const base = { at, traceId: client.traceId, ip, user: account.username };
  const { details = {} } = error.extras;
  switch (error.code) {
    case "quota_exceeded":
      return { type: "quota.exceeded", ...base, metric: String(details["metric"]), per: String(details["per"]) };
    case "rate_limited":
      return { type: "rate_limit.rejected", ...base, rule: String(details["rule"]) };
    case "concurrency_exceeded":
      return { type: "rate_limit.rejected", ...base, rule: "concurrency" };
    default:
      return null;
  }
}
