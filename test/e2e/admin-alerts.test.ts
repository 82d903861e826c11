import { expect, it } from "vitest";
import { startAdminApi } from "../support/admin-api.ts";
import { useReceiver, webhookSecret } from "../support/webhook.ts";

const receiver = useReceiver();

it("a test alert tells whether the webhook takes alerts, and is audited", async () => {
  const { post, as, audits } = await startAdminApi({
    config: `[alerts]\nwebhook_url = "${receiver().url}/hooks"\nallow_private = true\n`,
    env: { ALERT_WEBHOOK_SECRET: webhookSecret },
  });
  const taken = post("/admin/alerts/test");
  const first = await receiver().next();
  first.respond(200, "ok");
  expect(await taken).toEqual({ status: 200, body: { delivered: true, result: 200 } });
  expect(first.body).toMatchObject({ event: "alerts.test", id: first.headers["webhook-id"] });
  expect(first.headers["webhook-signature"]).toMatch(/^v1,[A-Za-z0-9+/]{43}=$/);
  const refused = post("/admin/alerts/test", {});
  (await receiver().next()).respond(401, "no");
  expect(await refused).toEqual({ status: 200, body: { delivered: false, result: 401 } });
  expect((await as("eve", "POST", "/admin/alerts/test")).status).toBe(403);
  expect(await audits()).toMatchObject([
    { action: "alerts.tested", by: "boss", after: { delivered: true, result: 200 } },
    { action: "alerts.tested", by: "boss", after: { delivered: false, result: 401 } },
  ]);
});

it("there is nothing to test without a webhook", async () => {
  const { post } = await startAdminApi();
  expect(await post("/admin/alerts/test")).toMatchObject({ status: 409, body: { error: { code: "conflict" } } });
});
