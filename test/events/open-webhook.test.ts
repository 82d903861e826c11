import { describe, expect, it } from "vitest";
import { parseConfig } from "../../src/config/load.ts";
import { createWebhook, webhookSettings } from "../../src/events/webhook/webhook.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { loginFailed, testEnvelopes } from "../support/events.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { useReceiver, webhookSecret } from "../support/webhook.ts";

const receiver = useReceiver();

function open(lines: string, secret: string | undefined) {
  const { alerts } = parseConfig(`[alerts]\n${lines}`, "config.toml");
  const settings = webhookSettings(alerts, secret);
  if (settings === null) return null;
  const ids = { envelopes: testEnvelopes(), newId: () => "id" };
  const parts = { ...ids, clock: createManualClock(), log: createCapturedLog(), random: () => 0 };
  return createWebhook({ ...settings, ...parts });
}

describe("the webhook of a config", () => {
  it("is none where no URL is given", () => {
    expect(open("", undefined)).toBeNull();
  });

  it.each([undefined, "", "short"])("is refused without a secret worth the name: %j", (secret) => {
    expect(() => open('webhook_url = "https://hooks.example.com/"', secret)).toThrow(
      "set ALERT_WEBHOOK_SECRET to a secret of at least 16 characters",
    );
  });

  it("is refused with a secret that is no Base64 after whsec_", () => {
    expect(() => open('webhook_url = "https://hooks.example.com/"', "whsec_not base64 at all!")).toThrow(
      "ALERT_WEBHOOK_SECRET: expected Base64 after whsec_",
    );
  });

  it("sends the events that the config names to where it says", async () => {
    const webhook = open(
      `webhook_url = "${receiver().url}/alerts"\nallow_private = true\nevents = ["login.failed"]`,
      webhookSecret,
    );
    webhook?.sink(loginFailed());
    const call = await receiver().next();
    call.respond(200, "ok");
    await webhook?.close(60_000);
    expect([call.url, call.body.event, webhook?.stats().delivered]).toEqual(["/alerts", "login.failed", 1]);
  });
});
