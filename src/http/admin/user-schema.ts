import { z } from "zod";
import type { Account } from "../../identity/account-schema.ts";
import { accountState, accountStates } from "../../identity/account-state.ts";
import { hasSecondFactor } from "../../identity/login/second-factor.ts";
import { roles } from "../../identity/roles.ts";
import { patchShape, requestShape, responseShape, viewOf } from "../../identity/user-fields.ts";
import { isUserName } from "../../identity/user-name.ts";

const role = z.enum(roles);
const state = z.enum(accountStates);

export const newUserBody = z
  .strictObject(requestShape)
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
  .strictObject(patchShape)
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
  ...responseShape,
  state: state.describe("Whether the account can be used now, and if not, why."),
  second_factor: z.boolean().describe("Whether a login with the password needs a code too."),
});

/**
 * A user as responses show it.
 * @param now ms since the epoch
 */
export function toUserResponse(account: Account, now: number) {
  return { ...viewOf(account), state: accountState(account, now), second_factor: hasSecondFactor(account) };
}

const password = z.string().describe("The one-time password. Shown only here.");

export const newUserResponse = userResponse.extend({ password: password.optional() });
export const resetResponse = userResponse.extend({ password });
export const usersResponse = z.object({
  users: z.array(userResponse).describe("Ordered by name."),
  next_cursor: z.string().nullable().describe("null at the end."),
});
