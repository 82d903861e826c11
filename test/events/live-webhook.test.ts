import { describe, expect, it } from "vitest";
import { createLiveWebhook } from "../../src/events/webhook/live-webhook.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { eventually } from "../support/eventually.ts";
import { loginFailed, testEnvelopes } from "../support/events.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { useReceiver, webhookSecret } from "../support/webhook.ts";

const receiver = useReceiver();

function setUp(deadlineMs: number) {
  const kept: string[] = [];
  const deadLetters = {
    add: (lines: readonly string[]): Promise<void> => {
      kept.push(...lines);
      return Promise.resolve();
    },
  };
  const parts = { envelopes: testEnvelopes(), newId: () => "id", random: () => 0, deadLetters };
  const webhook = createLiveWebhook({ ...parts, clock: createManualClock(), log: createCapturedLog() }, deadlineMs);
  const settings = {
    url: receiver().url,
    secret: webhookSecret,
    allowPrivate: true,
    events: ["login.failed"],
    timeoutMs: 60_000,
    maxAttempts: 3,
    maxQueued: 10,
  };
  return { webhook, settings, kept };
}

describe("a webhook that is taken out of the config", () => {
  it("still has what waits for it sent or kept before the end of the process", async () => {
    const { webhook, settings, kept } = setUp(1);
    webhook.configure(settings);
    webhook.sink(loginFailed());
    webhook.sink(loginFailed());
    await receiver().next();
    webhook.configure(null);
    webhook.sink(loginFailed());
    expect(webhook.test()).toBeNull();
    await webhook.close();
    expect(kept).toHaveLength(2);
    expect(webhook.stats()).toEqual({ queued: 0, delivered: 0, dropped: { queue_full: 0, undelivered: 0, closed: 2 } });
  });

  it("keeps its counts, to which those of a later one are added", async () => {
    const { webhook, settings } = setUp(60_000);
    expect(webhook.stats()).toBeUndefined();
    for (const delivered of [1, 2]) {
      webhook.configure(settings);
      webhook.sink(loginFailed());
      (await receiver().next()).respond(200, "");
      await eventually(() => {
        expect(webhook.stats()?.delivered).toBe(delivered);
      });
      webhook.configure(null);
      expect(webhook.stats()?.delivered).toBe(delivered);
    }
    await webhook.close();
    expect(webhook.stats()?.delivered).toBe(2);
  });
});
