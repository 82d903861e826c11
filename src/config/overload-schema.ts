import { z } from "zod";

const percent = z.int().min(1).max(100);
const milliseconds = z.int().min(10).max(60_000);

/** [overload]: from which signs of overload on new work is refused, so that what runs stays fast. */
export const overloadSection = z
  .strictObject({
    enabled: z
      .boolean()
      .default(true)
      .describe("Whether an overloaded proxy refuses new requests with 503, those of the lightest tiers first."),
    loop_delay_ms: milliseconds.default(50).describe("Delay of the event loop from which some requests are refused."),
    loop_delay_hard_ms: milliseconds.default(250).describe("Delay of the event loop from which all are."),
    heap_percent: percent
      .default(85)
      .describe("Use of the heap, in percent of its limit, from which some are refused."),
    heap_hard_percent: percent.default(95).describe("Use of the heap from which all are."),
    descriptors_percent: percent
      .default(90)
      .describe("Open files and connections, in percent of the limit (ulimit -n), from which some are refused."),
    descriptors_hard_percent: percent.default(97).describe("Open files and connections from which all are."),
    retry_after_seconds: z
      .int()
      .min(1)
      .max(600)
      .default(2)
      .describe("Least Retry-After of the 503; up to 2 seconds are added at random."),
  })
  .superRefine((section, ctx) => {
    const pairs = [
      ["loop_delay_ms", "loop_delay_hard_ms"],
      ["heap_percent", "heap_hard_percent"],
      ["descriptors_percent", "descriptors_hard_percent"],
    ] as const;
    for (const [soft, hard] of pairs) {
      if (section[hard] > section[soft]) continue;
      const message = `expected more than ${soft}, which is ${section[soft]}`;
      ctx.addIssue({ code: "custom", path: [hard], message, input: section[hard] });
    }
  });
