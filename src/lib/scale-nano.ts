import { parseNano } from "./money.ts";

const nanoPerUnit = 1_000_000_000n;

/**
 * An amount in nano-units times a decimal factor with at most 9 places; undefined where the product is not a whole
 * number of nano-units, or no safe integer. Throws RangeError where the factor is none.
 */
export function scaleNano(nano: number, factor: number): number | undefined {
  const product = BigInt(nano) * BigInt(parseNano(factor));
  if (product % nanoPerUnit !== 0n) return undefined;
  const scaled = Number(product / nanoPerUnit);
  return Number.isSafeInteger(scaled) ? scaled : undefined;
}
