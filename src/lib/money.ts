/**
 * Money is an integer of nano-units: 1e-9 of the currency. No float ever holds an amount, so sums are exact.
 * The largest amount, Number.MAX_SAFE_INTEGER, is a little more than nine million units.
 */
const digitsOfNano = 9;

/**
 * A decimal amount, as in a config file, in nano-units. Uses the decimal digits: 0.1 is exactly 100000000. Throws
 * RangeError for anything but a plain non-negative decimal with at most 9 places that fits a safe integer.
 */
export function parseNano(amount: number | string): number {
  const match = /^(\d+)(?:\.(\d+))?(?:e([+-]?\d{1,3}))?$/i.exec(String(amount));
  if (match === null) throw new RangeError(`not an amount: ${amount}`);
  const [, whole = "", fraction = "", exponent = "0"] = match;
  const shift = digitsOfNano - fraction.length + Number(exponent);
  const digits = BigInt(whole + fraction);
  const unit = 10n ** BigInt(Math.abs(shift));
  if (shift < 0 && digits % unit !== 0n) throw new RangeError(`more than ${digitsOfNano} decimal places: ${amount}`);
  const nano = shift < 0 ? digits / unit : digits * unit;
  if (nano > BigInt(Number.MAX_SAFE_INTEGER)) throw new RangeError(`too large an amount: ${amount}`);
  return Number(nano);
}

/** As parseNano; with a minus sign in front, a negative amount. */
export function parseSignedNano(amount: number | string): number {
  const text = String(amount);
  return text.startsWith("-") ? 0 - parseNano(text.slice(1)) : parseNano(text);
}

/** Nano-units as a decimal string without an exponent or needless zeros: 1500000000 is "1.5". */
export function formatNano(nano: number): string {
  if (!Number.isSafeInteger(nano)) throw new RangeError(`not an amount in nano-units: ${nano}`);
  const digits = String(Math.abs(nano)).padStart(digitsOfNano + 1, "0");
  const fraction = digits.slice(-digitsOfNano).replace(/(?<!0)0+$/, "");
  return `${nano < 0 ? "-" : ""}${digits.slice(0, -digitsOfNano)}${fraction === "" ? "" : `.${fraction}`}`;
}

/** Whether a value is a valid amount: a safe integer >= 0. */
export function isAmount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

/** The sum of two amounts, at most Number.MAX_SAFE_INTEGER: a counter saturates and never wraps. */
export function addAmounts(a: number, b: number): number {
  return Math.min(a + b, Number.MAX_SAFE_INTEGER);
}

const nanoPerUnit = 1_000_000_000n;

/**
 * An amount in nano-units times a decimal factor with at most 9 places; undefined if the product is not a whole number
 * of nano-units, or not a safe integer. Throws RangeError for an invalid factor.
 */
export function scaleNano(nano: number, factor: number): number | undefined {
  const product = BigInt(nano) * BigInt(parseNano(factor));
  if (product % nanoPerUnit !== 0n) return undefined;
  const scaled = Number(product / nanoPerUnit);
  return Number.isSafeInteger(scaled) ? scaled : undefined;
}
