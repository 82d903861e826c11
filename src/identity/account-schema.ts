import { TomlDate } from "smol-toml";
import { z } from "zod";
import { grantsSchema, limitsSchema, note, type GrantConfig, type LimitConfig } from "../config/schema.ts";
import { isTomlTime } from "../lib/wall-clock.ts";
import { isUserName } from "./user-name.ts";

/** A user's role. `user` may chat, `auditor` reads the administration, `admin` changes it. */
export type Role = (typeof roles)[number];
export const roles = ["user", "auditor", "admin"] as const;

/** An operator's own notes on a user: any TOML. Integers above 2^53 are bigints. */
export interface Metadata {
  readonly [key: string]: MetadataValue;
}
type MetadataValue = string | number | bigint | boolean | Date | readonly MetadataValue[] | Metadata;

/** A user as the rest of the proxy sees it; the keys are those of users/NAME.toml. Replaced, never mutated. */
export interface Account {
  readonly username: string;
  /** argon2id in PHC format. Never leaves this folder: not in logs, not in responses. */
  readonly password_hash: string;
  readonly quota_tier: string;
  /** Each replaces the tier's limit of the same metric, period and currency, or is added to the tier's limits. */
  readonly limits?: readonly LimitConfig[] | undefined;
  /** Each is added to the limit of the same metric, period and currency. */
  readonly grants?: readonly GrantConfig[] | undefined;
  /** Concurrent chats; absent means concurrency.max_parallel. */
  readonly max_parallel?: number | undefined;
  readonly roles: readonly Role[];
  readonly is_active: boolean;
  /** The account can't be used before. */
  readonly active_from?: Date | undefined;
  /** The account can't be used from then on. */
  readonly expires_at?: Date | undefined;
  /** The account can't be used until then. */
  readonly banned_until?: Date | undefined;
  /** Shown to the user while the ban lasts. */
  readonly ban_reason?: string | undefined;
  /** Whether the password is a one-time one: it only allows setting another. */
  readonly must_change_password?: boolean | undefined;
  /** Tokens of an older version are refused. Increased by a new password and by disabling. */
  readonly token_version: number;
  readonly created_at?: Date | undefined;
  readonly metadata: Metadata;
}

/** The contents of a user file: an account whose password may still be plaintext. */
export type AccountFields = Omit<Account, "password_hash"> & {
  readonly password?: string | undefined;
  readonly password_hash?: string | undefined;
};

const passwordHash = /^\$argon2id\$v=19\$m=\d{1,10},t=\d{1,10},p=\d{1,3}\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{16,}$/;

/** A date without an offset is a different instant in every time zone, and access must not depend on a guess. */
const instant = z
  .date()
  .refine(
    (date) => !(date instanceof TomlDate && date.isLocal()),
    "expected a date and time with an offset, such as 2026-12-31T18:00:00+08:00",
  )
  // A value from a file keeps its offset; any other is written in UTC.
  .refine(
    (date) => date instanceof TomlDate || isTomlTime(date.getTime()),
    "expected a time between the years 1 and 9999 in UTC",
  );

/**
 * The schema of users/NAME.toml. Unknown keys are refused. The messages contain no values: one may be a password.
 *
 * @param tierNames the tiers that config.toml defines now
 */
export function createAccountSchema(tierNames: () => readonly string[]): z.ZodType<AccountFields> {
  return z
    .strictObject({
      username: z.string().refine(isUserName, "expected lower-case letters, digits, - and _"),
      password: z.string().optional().describe("Plaintext; hashed and removed when the proxy reads it."),
      password_hash: z.string().regex(passwordHash, "expected an argon2id hash ($argon2id$v=19$...)").optional(),
      quota_tier: z.string().refine((tier) => tierNames().includes(tier), {
        error: () => `expected a tier of config.toml: ${tierNames().join(", ")}`,
      }),
      limits: limitsSchema.optional(),
      grants: grantsSchema.optional(),
      max_parallel: z.int().min(1).max(10_000).optional(),
      roles: z.array(z.enum(roles)).min(1).default(["user"]),
      is_active: z.boolean().default(true),
      active_from: instant.optional(),
      expires_at: instant.optional(),
      banned_until: instant.optional(),
      ban_reason: note.optional(),
      must_change_password: z.boolean().optional(),
      token_version: z.int().min(0).default(0),
      created_at: z.date().optional(),
      metadata: z.custom<Metadata>(isMetadata, "expected a table of TOML values").default({}),
    })
    .refine((fields) => fields.password !== undefined || fields.password_hash !== undefined, {
      path: ["password"],
      message: "expected a password or a password_hash",
    });
}

function isMetadata(value: unknown): value is Metadata {
  return isTable(value) && Object.entries(value).every(([key, inner]) => isText(key) && isMetadataValue(inner));
}

function isMetadataValue(value: unknown): boolean {
  if (Array.isArray(value)) return value.every(isMetadataValue);
  if (value instanceof Date) return !Number.isNaN(value.getTime());
  return isText(value) || ["number", "bigint", "boolean"].includes(typeof value) || isMetadata(value);
}

/** JSON's \\u escapes can contain half of a surrogate pair, which UTF-8 cannot represent. */
function isText(value: unknown): boolean {
  return typeof value === "string" && Buffer.from(value).toString() === value;
}

function isTable(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || prototype === Object.prototype;
}
