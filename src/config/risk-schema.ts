import { z } from "zod";
import { signalNames, signals, type SignalName } from "../risk/signals.ts";
import { plainName } from "./value-schemas.ts";

const count = (min: number, max: number) => z.int().min(min).max(max);
const factor = z.number().positive().max(100);
const score = z.number().min(0).max(100);
const hours = z.number().min(0).max(8760);

const stepSchema = z.strictObject({
  name: plainName.describe("The step's name."),
  rate: factor.default(1).describe("Factor of the rates by user and by key."),
  parallel: factor.default(1).describe("Factor of the user's parallel requests; at least one remains."),
  quota: factor.default(1).describe("Factor of the user's own quota limits; those of keys and groups stay."),
});

/** From the most careful to the most trusting. */
const defaultSteps: z.output<typeof stepSchema>[] = [
  { name: "restricted", rate: 0.25, parallel: 0.25, quota: 0.25 },
  { name: "probation", rate: 0.5, parallel: 0.5, quota: 0.5 },
  { name: "normal", rate: 1, parallel: 1, quota: 1 },
  { name: "trusted", rate: 2, parallel: 2, quota: 1.5 },
];

/** How much a signal counts. What is left out has its default. */
const signalSchema = (name: SignalName) => {
  const { title, points, from, to } = signals[name];
  return z
    .strictObject({
      points: score.default(points).describe("Points at full strength; 0 switches the signal off."),
      from: z.number().min(0).max(1e9).default(from).describe("Up to this value it gives no points."),
      to: z.number().min(0).max(1e9).default(to).describe("From this value on it gives all points."),
    })
    .refine((signal) => signal.from < signal.to, { error: "expected a value above `from`", path: ["to"] })
    .prefault({})
    .meta({ description: `${title[0]?.toUpperCase() ?? ""}${title.slice(1)}.`, row: "one" });
};
const signalsSchema = z.strictObject(
  Object.fromEntries(signalNames.map((name) => [name, signalSchema(name)])) as Record<
    SignalName,
    ReturnType<typeof signalSchema>
  >,
);

/** [risk]: how far each user is trusted, by what they do. */
export const riskSection = z
  .strictObject({
    enabled: z.boolean().default(false).describe("Whether users have trust steps; false: every factor is 1."),
    steps: z
      .array(stepSchema)
      .min(2)
      .max(10)
      .default(defaultSteps)
      .describe("The trust steps, from the most careful to the most trusting."),
    start: plainName.default("probation").describe("The step of new users. Older accounts begin one step above it."),
    demote_score: score.default(50).describe("From this score on a user goes down one step."),
    demote_pause_hours: hours.default(12).describe("So long a user stays at a step before going down again."),
    promote_score: score.default(20).describe("Only users who have stayed below this score go up."),
    recover_hours: hours.default(24).describe("Below `start` a user goes up after so long below promote_score."),
    promote_days: count(0, 3650).default(3).describe("From `start` on a user goes up after so many days at a step."),
    promote_active_days: count(0, 3650).default(3).describe("Days with completed requests that this takes as well."),
    promote_requests: count(0, 1_000_000_000).default(30).describe("Completed requests that it takes as well."),
    min_requests: count(1, 1_000_000)
      .default(10)
      .describe("Shares of requests give no points before a user has had so many in about a day."),
    signals: signalsSchema.prefault({}),
  })
  .superRefine(({ steps, start, demote_score, promote_score }, ctx) => {
    const names = steps.map(({ name }) => name);
    names.forEach((name, index) => {
      const first = names.indexOf(name);
      if (first === index) return;
      const message = `expected another name than steps.${first} has`;
      ctx.addIssue({ code: "custom", path: ["steps", index, "name"], message });
    });
    if (!names.includes(start)) {
      const message = `expected the name of a step: ${names.join(", ")}`;
      ctx.addIssue({ code: "custom", path: ["start"], message });
    }
    if (promote_score >= demote_score) {
      const message = `expected a score below demote_score, which is ${demote_score}`;
      ctx.addIssue({ code: "custom", path: ["promote_score"], message });
    }
  });

/** [risk] of the config. */
export type RiskConfig = Readonly<z.infer<typeof riskSection>>;
