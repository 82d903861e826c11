import type { Facts } from "./types.ts";

/** A text among facts whose shape the panel does not know; "" where there is none. */
export function textOf(facts: Facts, ...names: readonly string[]): string {
  for (const name of names) {
    const value = facts[name];
    if (typeof value === "string" && value !== "") return value;
    if (typeof value === "number" || typeof value === "boolean") return String(value);
  }
  return "";
}

/** A number among facts; 0 where there is none. */
export function numberOf(facts: Facts, ...names: readonly string[]): number {
  return numberOrNull(facts, ...names) ?? 0;
}

export function numberOrNull(facts: Facts, ...names: readonly string[]): number | null {
  for (const name of names) {
    const value = facts[name];
    if (typeof value === "number") return value;
  }
  return null;
}

/** Any value on one line. */
export function inline(value: unknown): string {
  if (value === null || value === undefined) return "–";
  if (typeof value === "string") return value;
  return typeof value === "number" || typeof value === "boolean" ? String(value) : JSON.stringify(value);
}
