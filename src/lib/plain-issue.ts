/** A message of zod in words for people who call an API: "is missing; expected string" for a field that isn't there. */
export function plainIssue(message: string): string {
  const [, expected, received] = /^Invalid input: (expected .*), received (\w+)$/s.exec(message) ?? [];
  if (expected === undefined) return message;
  return received === "undefined" ? `is missing; ${expected}` : `${expected}, received ${received}`;
}
