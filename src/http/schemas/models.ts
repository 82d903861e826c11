import { z } from "zod";

/** A model as OpenAI's clients know it. */
export const model = z.object({
  id: z.string(),
  object: z.literal("model"),
  created: z.number(),
  owned_by: z.string().describe("The provider that is tried first."),
});

export const modelList = z.object({ object: z.literal("list"), data: z.array(model) });

/** A model as Anthropic's clients know it. */
export const anthropicModel = z.object({
  type: z.literal("model"),
  id: z.string(),
  display_name: z.string(),
  created_at: z.iso.datetime(),
});

export const anthropicModelList = z.object({
  data: z.array(anthropicModel),
  has_more: z.literal(false).describe("All are in one response."),
  first_id: z.string().nullable(),
  last_id: z.string().nullable(),
});
