import { afterEach, beforeEach, expect, onTestFinished } from "vitest";
import { createWebhook, type Webhook, type WebhookOptions } from "../../src/events/webhook/webhook.ts";
import { createCapturedLog } from "./captured-log.ts";
import { eventually } from "./eventually.ts";
import { createManualClock } from "./manual-clock.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "./scripted-upstream.ts";

export const webhookSecret = "a-secret-of-the-webhook";
export const startMs = Date.UTC(2026, 10, 22, 10);

/** A receiver of its own for each test of the file that calls this. */
export function useReceiver(): () => ScriptedUpstream {
  let receiver: ScriptedUpstream | undefined;
  beforeEach(async () => {
    receiver = await startScriptedUpstream();
  });
  afterEach(() => receiver?.close());
  return () => {
    if (receiver === undefined) throw new Error("no test is running");
    return receiver;
  };
}

/** A webhook that sends failed logins to a receiver; closed after the test. */
export function useWebhook(receiverUrl: string, changes: Partial<WebhookOptions> = {}) {
  const log = createCapturedLog();
  let ids = 0;
  const webhook = createWebhook({
    url: `${receiverUrl}/hooks/path-secret?key=query-secret`,
    secret: webhookSecret,
    events: ["login.failed"],
    allowPrivate: true,
    timeoutMs: 10_000,
    maxAttempts: 3,
    maxQueued: 10,
    firstRetryMs: 1,
    clock: createManualClock(startMs),
    log,
    envelopes: { idOf: () => `id-${(ids += 1)}` },
    newId: () => "test-1",
    random: () => 0,
    ...changes,
  });
  onTestFinished(() => webhook.close(0));
  return { webhook, log };
}

/** Waits until nothing is queued and so many alerts have been delivered. */
export function sent(webhook: Webhook, delivered: number): Promise<void> {
  return eventually(() => {
    expect(webhook.stats()).toMatchObject({ queued: 0, delivered });
  });
}

/** Waits until so many alerts have been given up. */
export function undelivered(webhook: Webhook, count: number): Promise<void> {
  return eventually(() => {
    expect(webhook.stats().dropped.undelivered).toBe(count);
  });
}
