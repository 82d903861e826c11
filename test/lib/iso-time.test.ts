import { fc } from "../support/fast-check.ts";
import { expect, test } from "vitest";
import { createIsoTime } from "../../src/lib/dates.ts";

test("says the same as Date.toISOString, in whatever order the times come", () => {
  const ms = fc.oneof(fc.integer({ min: -1e12, max: 4e12 }), fc.integer({ min: 1.79e12, max: 1.79e12 + 3000 }));
  fc.assert(
    fc.property(fc.array(ms), (times) => {
      const isoTime = createIsoTime();
      for (const time of times) expect(isoTime(time)).toBe(new Date(time).toISOString());
    }),
  );
});
