import { z } from "zod";
import { limitsSchema, modelGlob, network, plainName, type LimitConfig } from "../../config/schema.ts";
import { globMatcher } from "../../lib/globs.ts";
import { createAddressRules } from "../../lib/ip-list.ts";

const digest = z.string().length(43);

/** The settings that the owner chooses for a key. The schema of a request's body, and part of the file's. */
export const apiKeyTerms = {
  name: z
    .string()
    .trim()
    .regex(/^\P{C}{1,64}$/u, "expected 1 to 64 characters that can be seen")
    .describe("A name to recognize it by in the list."),
  models: z
    .array(modelGlob)
    .min(1)
    .max(100)
    .optional()
    .describe('Models that may be used, by the names that clients send; globs such as "deepseek-*". Absent: all.'),
  addresses: z
    .array(network)
    .min(1)
    .max(100)
    .optional()
    .describe("Addresses and networks from which it may be used. Absent: all."),
  deny_addresses: z
    .array(network)
    .min(1)
    .max(100)
    .optional()
    .describe("Addresses and networks from which it may not be used, even if `addresses` has them."),
  limits: limitsSchema.optional().describe("Limits of this key, in addition to the user's."),
  group: plainName.optional().describe("The group that its requests count for. Absent: as the request says."),
};

/** The schema of a key in its file. */
export const apiKeyRow = z.strictObject({
  id: z.string().min(1).max(64),
  ...apiKeyTerms,
  hash: digest,
  signing_salt: digest.optional(),
  created_at: z.date(),
  expires_at: z.date().optional(),
  last_used_at: z.date().optional(),
});

/** A key as in the file. */
export type ApiKeyRow = Readonly<z.output<typeof apiKeyRow>>;

/** A key as the rest of the proxy sees it: without secrets. Times in ms since the epoch. */
export interface ApiKey {
  readonly id: string;
  readonly user: string;
  readonly name: string;
  readonly createdAt: number;
  readonly expiresAt: number | null;
  /** null: all models. */
  readonly models: readonly string[] | null;
  /** null: all addresses. */
  readonly addresses: readonly string[] | null;
  readonly denyAddresses: readonly string[];
  /** In addition to the user's own limits; empty: none. */
  readonly limits: readonly LimitConfig[];
  /** The group that its requests count for; null: as the request says. */
  readonly group: string | null;
  /** Whether its requests must be signed. */
  readonly signed: boolean;
  /** @param model the name that the client sends */
  allowsModel(model: string): boolean;
  allowsAddress(ip: string): boolean;
}

/** Converts a row to its key. */
export function toApiKey(user: string, row: ApiKeyRow): ApiKey {
  const models = row.models?.map(globMatcher);
  const rules = createAddressRules(row.addresses ?? [], row.deny_addresses ?? []);
  return {
    id: row.id,
    user,
    name: row.name,
    createdAt: row.created_at.getTime(),
    expiresAt: row.expires_at?.getTime() ?? null,
    models: row.models ?? null,
    addresses: row.addresses ?? null,
    denyAddresses: row.deny_addresses ?? [],
    limits: row.limits ?? [],
    group: row.group ?? null,
    signed: row.signing_salt !== undefined,
    allowsModel: (model) => models?.some((matches) => matches(model)) ?? true,
    allowsAddress: (ip) => rules.allows(ip),
  };
}
