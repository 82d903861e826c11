import { describe, expect, it } from "vitest";
import type { Nonces } from "../../src/identity/nonces.ts";
import type { Clock } from "../../src/lib/clock.ts";
import { createManualClock } from "../support/manual-clock.ts";

const start = 1_795_305_600;

/** What every memory of nonces does. */
export function describeNonces(name: string, open: (clock: Clock) => Promise<Nonces>): void {
  describe(name, () => {
    it("accepts a nonce of a key once, however many come at once", async () => {
      const nonces = await open(createManualClock(start * 1000));
      const all = await Promise.all(Array.from({ length: 20 }, async () => nonces.use("k1", "nonce", start)));
      expect(all.filter((accepted) => accepted)).toHaveLength(1);
      expect(await nonces.use("k2", "nonce", start)).toBe(true);
      expect(await nonces.use("k1", "another", start)).toBe(true);
    });

    it("never accepts it again while its timestamp is near the current time", async () => {
      const clock = createManualClock(start * 1000);
      const nonces = await open(clock);
      expect(await nonces.use("k1", "nonce", start + 300)).toBe(true);
      clock.advance(600_000);
      expect(await nonces.use("k1", "nonce", start + 300)).toBe(false);
      expect(await nonces.use("k1", "nonce2", start + 600)).toBe(true);
    });
  });
}
