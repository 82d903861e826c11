const bounds = new Map([
  ["<=", "at most"],
  [">=", "at least"],
  ["<", "less than"],
  [">", "more than"],
]);

/** A message of zod in words for people who call an API: "is missing; expected string" for a field that isn't there. */
export function plainIssue(message: string): string {
  const [, bound = "", limit, unit = ""] =
    /^Too (?:big|small): expected \w+ to (?:be|have) ([<>]=?)(\S+)(?: (\w+))?$/.exec(message) ?? [];
  if (limit !== undefined) {
    const counted = limit === "1" ? unit.replace(/s$/, "") : unit;
    return `expected ${bounds.get(bound) ?? bound} ${limit}${counted === "" ? "" : ` ${counted}`}`;
  }
  const [, expected, received] = /^(?:Invalid input: )?(expected .*), received (\w+)$/s.exec(message) ?? [];
  if (expected === undefined) return message;
  // What came is a number as well, with a fraction.
  if (expected === "expected int") return "expected a whole number";
  return received === "undefined" ? `is missing; ${expected}` : `${expected}, received ${received}`;
}
