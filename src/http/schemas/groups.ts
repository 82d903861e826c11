import { z } from "zod";
import { groupSchema } from "../../config/schema.ts";
import type { Group } from "../../identity/groups.ts";

const { shape } = groupSchema;

/** A new group, in requests. */
export const newGroupBody = z.strictObject({ name: z.string().describe("Its name."), ...shape });

/** A field of a change. Without its default, which it would get where it is absent; null restores that. */
function change<Field extends z.ZodType>(field: { unwrap(): Field }): z.ZodOptional<z.ZodNullable<Field>> {
  return z.optional(z.nullable(field.unwrap()));
}

/** A change of a group. */
export const groupPatchBody = z.strictObject({
  description: change(shape.description),
  members: change(shape.members),
  owners: change(shape.owners),
  limits: change(shape.limits),
  rates: change(shape.rates),
  models: change(shape.models),
  max_parallel: change(shape.max_parallel),
});

const names = z.array(z.string());

/** A group. */
export const groupResponse = z.object({
  name: z.string(),
  description: z.string(),
  members: names.describe("As they are listed: users, and other groups behind an @."),
  owners: names,
  limits: z.array(z.looseObject({ metric: z.string(), per: z.string(), max: z.number() })),
  rates: z.array(z.looseObject({ metric: z.string(), per: z.string(), max: z.number() })),
  models: names.nullable().describe("null: all."),
  max_parallel: z.int().nullable().describe("null: no limit."),
  origin: z.enum(["config", "admin"]).describe("config: it is in config.toml, and can only be changed there."),
});

/** The same with all its members. */
export const wholeGroupResponse = groupResponse.extend({
  users: names.describe("All members, those of groups among them included."),
});

export function toGroupResponse(group: Group): z.input<typeof groupResponse> {
  const { name, description, listed, owners, limits, rates, models, maxParallel, origin } = group;
  return {
    name,
    description,
    members: [...listed],
    owners: [...owners],
    limits: [...limits],
    rates: [...rates],
    models: models === null ? null : [...models],
    max_parallel: maxParallel,
    origin,
  };
}
