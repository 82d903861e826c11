import { nearestWord } from "../config/explain.ts";
import type { Account } from "../identity/account-schema.ts";
import { type Role, roles } from "../identity/roles.ts";
import { type Metadata, optionFields, type OptionName, settableNames } from "../identity/user-fields.ts";
import { parseToml } from "../identity/files/toml-edit.ts";
import type { UserPatch } from "../admin/user-admin.ts";
import { UsageError } from "./command-line.ts";

/** The options with a text of their own for each use. */
type TextOption = Exclude<OptionName, "role">;

const textOptions = (Object.keys(optionFields) as OptionName[]).filter((name): name is TextOption => name !== "role");

/** The options that set a user's fields. */
export const fieldOptions = {
  ...(Object.fromEntries(textOptions.map((name) => [name, { type: "string" }])) as Record<
    TextOption,
    { readonly type: "string" }
  >),
  role: { type: "string", multiple: true },
  metadata: { type: "string", multiple: true },
} as const;

/** Their values. */
export type FieldValues = Readonly<Partial<Record<TextOption, string | undefined>>> & {
  readonly role?: readonly string[] | undefined;
  readonly metadata?: readonly string[] | undefined;
};

/** Fields to set, from the command line; null removes. The store validates the values, as always. */
export interface Fields {
  readonly patch: UserPatch;
  /** Keys of the metadata. */
  readonly metadata: Readonly<Record<string, unknown>>;
}

/**
 * Reads options, and words such as `max_parallel=3`, `expires_at=2026-12-31T18:00:00+08:00` or `metadata.team=sales`. A
 * value is TOML, or else plain text; an empty one removes. Throws UsageError.
 */
export function readFields(values: FieldValues, words: readonly string[] = []): Fields {
  const patch: Record<string, unknown> = {};
  const metadata: Record<string, unknown> = {};
  if (values.role !== undefined) patch.roles = values.role.map(toRole);
  for (const option of textOptions) {
    const value = values[option];
    if (value !== undefined) patch[optionFields[option]] = option === "tier" ? value : readValue(value);
  }
  const pairs = [...words, ...(values.metadata ?? []).map((pair) => `metadata.${pair}`)];
  for (const [key, value] of pairs.map(splitPair)) {
    if (key.startsWith("metadata.")) metadata[key.slice("metadata.".length)] = readValue(value);
    else if (!isSettable(key)) throw new UsageError(unknownField(key));
    else patch[key] = key === "roles" && /^[\w,]+$/.test(value) ? value.split(",").map(toRole) : readValue(value);
  }
  return { patch, metadata };
}

/** An account's metadata with these keys set or removed. */
export function mergeMetadata(account: Pick<Account, "metadata">, changes: Fields["metadata"]): Metadata {
  const merged = Object.entries({ ...account.metadata, ...changes }).filter(([, value]) => value !== null);
  return Object.fromEntries(merged) as Metadata;
}

/** Parses a TOML value, or returns the text itself if it isn't one; null if it is empty. */
export function readValue(text: string): unknown {
  if (text === "") return null;
  try {
    return parseToml(`value = ${text}`).value;
  } catch {
    return text;
  }
}

function isSettable(key: string): boolean {
  return key !== "metadata" && settableNames.some((known) => known === key);
}

function unknownField(key: string): string {
  const isOption = Object.hasOwn(optionFields, key);
  const meant = isOption ? optionFields[key as OptionName] : nearestWord(key, settableNames);
  return `there is no field "${key}" to set${meant === undefined ? "" : `; did you mean "${meant}"?`}`;
}

function splitPair(pair: string): readonly [string, string] {
  const at = pair.indexOf("=");
  if (at < 0) throw new UsageError(`"${pair}" is not KEY=VALUE`);
  return [pair.slice(0, at), pair.slice(at + 1)];
}

function toRole(text: string): Role {
  const role = roles.find((known) => known === text);
  if (role === undefined) throw new UsageError(`there is no role "${text}": ${roles.join(", ")}`);
  return role;
}
