/** What an account has left, as its provider tells it. */
export interface Balance {
  /** Whether it suffices for requests. */
  readonly available: boolean;
  /** Decimal texts, as they came: nothing is reckoned with them. */
  readonly amounts: readonly { readonly currency: string; readonly total: string }[];
}

/** Longest text that is taken over, in characters. */
const maxText = 32;

/** Reads DeepSeek's answer to GET /user/balance; null where it is none. */
export function readBalance(body: unknown): Balance | null {
  if (!isRecord(body) || typeof body.is_available !== "boolean") return null;
  const infos: readonly unknown[] = Array.isArray(body.balance_infos) ? body.balance_infos : [];
  return {
    available: body.is_available,
    amounts: infos.filter(isRecord).map(({ currency, total_balance: total }) => ({
      currency: text(currency),
      total: text(total),
    })),
  };
}

function text(value: unknown): string {
  return typeof value === "string" ? value.slice(0, maxText) : "";
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
