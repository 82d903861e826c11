import { formatNano, parseNano } from "../../lib/money.ts";
import type { ExportedRow } from "../usage/usage-export.ts";
import { costOf, type NamedPrice, type Price } from "./pricing.ts";

/** Why a row doesn't cost what the prices say, or why that is not known. */
export interface BillDifference {
  readonly row: ExportedRow;
  /** In nano-units; undefined if it can't be worked out. */
  readonly expected: number | undefined;
  readonly reason: string;
}

/** A price counts from the arrival of a request, which may have waited so long for its first charge, in ms. */
const waitMs = 86_400_000;

/**
 * Works out the cost of a charged request again, from its tokens and the price of its name. Returns undefined if it is as
 * recorded.
 */
export function checkBill(row: ExportedRow, prices: ReadonlyMap<string, NamedPrice>): BillDifference | undefined {
  if (row.kind !== "request") return undefined;
  const isFree = row.outcome === "upstream_failed" || row.outcome === "refused";
  if (isFree || (row.requests === 0 && row.tokens === 0)) return row.cost === 0 ? undefined : other(row, 0);
  if (row.price === "") {
    if (row.cost === 0) return undefined;
    if (row.outcome !== "unsettled") return other(row, 0, "it has a cost and no price");
    return other(row, undefined, "it was never settled, and its record is from before first charges had a price");
  }
  const named = prices.get(row.price);
  if (named === undefined) return withoutPrice(row);
  const { price, from, until } = named;
  const expected = costOf(price, row.usage);
  if (price.currency !== row.currency) return other(row, expected, `the config has this price in ${price.currency}`);
  if (row.at < from || row.at >= until + waitMs)
    return other(row, expected, "by the config the price was not in force then");
  if (expected === row.cost) return undefined;
  return other(row, expected, row.estimated ? "its tokens are estimated" : undefined);
}

function other(
  row: ExportedRow,
  expected: number | undefined,
  reason = "the recorded cost is another one",
): BillDifference {
  return { row, expected, reason };
}

/** The name of a price has its figures, so it is known whether that is all that is wrong. */
function withoutPrice(row: ExportedRow): BillDifference {
  const gone = "its price is no longer in the config";
  const price = priceOfName(row.price, row.currency);
  if (price === undefined) return other(row, undefined, gone);
  const cost = costOf(price, row.usage);
  const word = cost === row.cost ? "which its name confirms" : `by its name it would be ${formatNano(cost)}`;
  return other(row, undefined, `${gone}, ${word}`);
}

function priceOfName(id: string, currency: string): Price | undefined {
  const figures = id.slice(id.lastIndexOf(" ") + 1).split("/");
  try {
    const [cacheHit, cacheMiss, output, reasoning] = figures.map(parseNano);
    if (cacheHit === undefined || cacheMiss === undefined || output === undefined || reasoning === undefined)
      return undefined;
    return { id, currency, cacheHit, cacheMiss, output, reasoning };
  } catch {
    return undefined;
  }
}
