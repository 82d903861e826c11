import { z } from "zod";
import { type AccountFields, fileShape } from "./user-fields.ts";

/** A user as the rest of the proxy sees it; the keys are those of users/NAME.toml. Replaced, never mutated. */
export type Account = Omit<AccountFields, "password" | "password_hash"> & {
  /** argon2id in PHC format. Never leaves this folder: not in logs, not in responses. */
  readonly password_hash: string;
};

/**
 * The schema of users/NAME.toml. Unknown keys are refused. The messages contain no values: one may be a password.
 *
 * @param tierNames the tiers that config.toml defines now
 */
export function createAccountSchema(tierNames: () => readonly string[]): z.ZodType<AccountFields> {
  return z
    .strictObject({
      ...fileShape,
      quota_tier: fileShape.quota_tier.refine((tier) => tierNames().includes(tier), {
        error: () => `expected a tier of config.toml: ${tierNames().join(", ")}`,
      }),
    })
    .refine((fields) => fields.password !== undefined || fields.password_hash !== undefined, {
      path: ["password"],
      message: "expected a password or a password_hash",
    });
}
