import { z } from "zod";

const count = (min: number, max: number) => z.int().min(min).max(max);

/** [events]: who may follow them, and where they go. */
export const eventsSection = z.strictObject({
  ring_size: count(0, 1_000_000)
    .default(10_000)
    .describe(
      "Latest events kept in memory, so that readers of /admin/events can resume; at most 2 KB each on average.",
    ),
  max_streams: count(0, 10_000).default(50).describe("Readers of /admin/events at once; more get 503."),
});
