import { z } from "zod";
import { modelGlob, plainName } from "./value-schemas.ts";

const count = (min: number, max: number) => z.int().min(min).max(max);
const cap = count(1, 1_000_000);

const adaptiveSection = z.strictObject({
  enabled: z
    .boolean()
    .default(false)
    .describe("Whether the cap of a provider comes down while it is slow or answers 429, and rises again afterwards."),
  min: count(1, 10_000).default(2).describe("Least cap."),
  latency_factor: z
    .number()
    .min(1.1)
    .max(100)
    .default(2)
    .describe("A first event that takes so many times as long as the best of the last 10 minutes counts as slow."),
  decrease: z.number().min(0.1).max(0.99).default(0.8).describe("Factor by which a cap comes down."),
});

/** [concurrency]: how many requests run at once, and how the others wait for their turn. */
export const concurrencySection = z.strictObject({
  max_parallel: count(1, 10_000).default(8).describe("Concurrent chats per user; user files can override it."),
  max_wait_ms: count(0, 600_000).default(30_000).describe("How long a further one may wait for its turn before 429."),
  max_waiting: count(0, 10_000).default(32).describe("How many may wait per user."),
  max_waiting_total: count(0, 1_000_000).default(2000).describe("How many may wait in all."),
  max_total: count(0, 1_000_000).default(0).describe("Concurrent chats of all users together; 0: no cap."),
  per_model: z
    .record(modelGlob, cap)
    .default({})
    .describe(
      "Concurrent chats with a model, by its name after aliases. A glob is a cap for each model that it matches; a name wins over a glob, a glob with more letters over one with fewer.",
    ),
  per_provider: z.record(plainName, cap).default({}).describe("Concurrent chats at a provider, over all its keys."),
  notice_after_ms: count(0, 600_000)
    .default(2000)
    .describe("A stream that has waited so long gets its 200, and comments with its place; 0: never."),
  adaptive: adaptiveSection.prefault({}),
});

interface CheckedConfig {
  readonly concurrency: z.infer<typeof concurrencySection>;
  readonly providers: readonly { readonly name: string }[];
}

/** Refuses caps of providers that don't exist, and caps below the least that an adaptive cap may have. */
export function checkPermits({ concurrency, providers }: CheckedConfig, ctx: z.core.$RefinementCtx): void {
  const names = providers.length === 0 ? ["simulator"] : providers.map(({ name }) => name);
  const { adaptive, per_provider: perProvider } = concurrency;
  for (const [name, max] of Object.entries(perProvider)) {
    const refuse = (message: string): void => {
      ctx.addIssue({ code: "custom", path: ["concurrency", "per_provider", name], message, input: max });
    };
    if (!names.includes(name) && name !== "simulator") refuse(`expected the name of a provider: ${names.join(", ")}`);
    else if (adaptive.enabled && max < adaptive.min)
      refuse(`expected at least concurrency.adaptive.min, which is ${adaptive.min}`);
  }
}
