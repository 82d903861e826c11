import { bearer, type RunningProxy } from "./start-proxy.ts";

/** What GET /auth/quota says of the first limit. */
export interface QuotaLimit {
  readonly metric: string;
  readonly per: string;
  readonly max: number;
  readonly used: number;
  readonly reserved: number;
  readonly remaining: number;
  readonly reset_at: string | null;
}

/** All limits of the token's user. */
export async function quotaOf(proxy: Pick<RunningProxy, "url">, token: string): Promise<readonly QuotaLimit[]> {
  const answer = await fetch(`${proxy.url}/auth/quota`, { headers: bearer(token) });
  const body = (await answer.json()) as { limits: QuotaLimit[] };
  return body.limits;
}

/** Requests charged to the token's user so far. */
export async function usedRequests(proxy: Pick<RunningProxy, "url">, token: string): Promise<number> {
  const limit = (await quotaOf(proxy, token)).find(({ metric }) => metric === "requests");
  if (limit === undefined) throw new Error("no limit on requests");
  return limit.used;
}
