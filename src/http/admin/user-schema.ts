import { TomlDate } from "smol-toml";
import { z } from "zod";
import { roles, type Account, type Metadata } from "../../identity/account-schema.ts";
import { accountState, accountStates } from "../../identity/account-state.ts";
import { isUserName } from "../../identity/user-name.ts";
import { userView } from "../../admin/user-view.ts";
import { limitsSchema, type GrantConfig } from "../../config/schema.ts";
import { metricNames } from "../../quota/metrics.ts";
import { periodNames } from "../../quota/periods.ts";
import { isoInstant, note } from "../../config/value-schemas.ts";

const role = z.enum(roles);
const state = z.enum(accountStates);

const instant = isoInstant.transform((text) => new Date(text));

/** As in the user file: a date, or a date and time with or without an offset. */
const moment = z
  .union([z.iso.date(), z.iso.datetime({ offset: true, local: true })])
  .transform((text): Date => new TomlDate(text));

const grant = {
  metric: z.enum(metricNames),
  per: z.enum(periodNames),
  currency: z.string().optional().describe("Only for cost."),
  amount: z.number(),
  reason: note.optional(),
};

/** Absent keys stay absent: a user file can't hold undefined. */
const grants = z
  .array(z.strictObject({ ...grant, until: moment.optional() }))
  .transform((list): readonly GrantConfig[] => list as readonly GrantConfig[]);

const metadata = z
  .record(z.string(), z.unknown())
  .transform((value) => value as Metadata)
  .describe("A table of your own: strings, numbers, booleans, lists and tables; no null.");

const fields = {
  quota_tier: z.string().max(100).describe("A tier of config.toml."),
  roles: z.array(role).min(1),
  is_active: z.boolean(),
  active_from: instant.describe("The account can't be used before."),
  expires_at: instant.describe("The account can't be used from then on."),
  banned_until: instant.describe("The account can't be used until then."),
  ban_reason: note.describe("Shown to the user while the ban lasts."),
  max_parallel: z.int().min(1).max(10_000).describe("Chats at once. Default: concurrency.max_parallel."),
  limits: limitsSchema,
  grants: grants.describe("What the user may use in addition, for a time."),
  metadata,
};

export const newUserBody = z
  .strictObject(fields)
  .partial()
  .extend({
    username: z.string().describe("1 to 32 lower-case letters, digits, - and _."),
    password: z
      .string()
      .max(4096)
      .optional()
      .describe("If absent, a one-time password is created and returned in the response."),
  });

export const userPatchBody = z
  .strictObject({
    quota_tier: fields.quota_tier,
    roles: fields.roles.nullable(),
    is_active: fields.is_active.nullable(),
    active_from: fields.active_from.nullable(),
    expires_at: fields.expires_at.nullable(),
    banned_until: fields.banned_until.nullable(),
    ban_reason: fields.ban_reason.nullable(),
    max_parallel: fields.max_parallel.nullable(),
    limits: fields.limits.nullable(),
    grants: fields.grants.nullable(),
    metadata: fields.metadata.nullable(),
  })
  .partial()
  .describe(
    "What is absent stays; null removes, so that the default holds. Lists and metadata are replaced as a whole.",
  );

/** Rejects any field: the client would expect it to have an effect. */
export const emptyBody = z.strictObject({}).nullish();

export const usersQuery = z.strictObject({
  cursor: z
    .string()
    .refine(isUserName, "expected a user name")
    .optional()
    .describe("`next_cursor` of the previous page."),
  limit: z.coerce.number().int().min(1).max(500).default(100).describe("Users per page."),
  search: z.string().max(100).optional().describe("Part of the name."),
  tier: z.string().max(100).optional(),
  role: role.optional(),
  state: state.optional(),
});

export const userResponse = z.object({
  username: z.string(),
  quota_tier: z.string(),
  roles: z.array(role),
  state: state.describe("Whether the account can be used now, and if not, why."),
  is_active: z.boolean(),
  active_from: z.iso.datetime().nullable(),
  expires_at: z.iso.datetime().nullable(),
  banned_until: z.iso.datetime().nullable(),
  ban_reason: z.string().nullable(),
  must_change_password: z.boolean().describe("Whether the password is a one-time one."),
  max_parallel: z.int().nullable(),
  limits: z.array(z.looseObject({ metric: z.string(), per: z.string(), max: z.number() })),
  grants: z.array(z.looseObject({ ...grant, until: z.string().optional() })),
  metadata: z.record(z.string(), z.unknown()).describe("Dates, and integers above 2^53, are strings."),
  created_at: z.iso.datetime().nullable(),
});

/**
 * A user as responses show it.
 * @param now ms since the epoch
 */
export function toUserResponse(account: Account, now: number) {
  const { roles, limits, grants, ...view } = userView(account);
  return {
    ...view,
    roles: [...roles],
    limits: [...limits],
    grants: [...grants],
    metadata: { ...view.metadata },
    state: accountState(account, now),
  };
}

const password = z.string().describe("The one-time password. Shown only here.");

export const newUserResponse = userResponse.extend({ password: password.optional() });
export const resetResponse = userResponse.extend({ password });
export const usersResponse = z.object({
  users: z.array(userResponse).describe("Ordered by name."),
  next_cursor: z.string().nullable().describe("null at the end."),
});
