import { createHmac } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { createDeadLetters } from "../../src/events/webhook/dead-letters.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { tempDir } from "../support/temp-dir.ts";
import { loginFailed } from "../support/events.ts";
import { eventually } from "../support/eventually.ts";
import { sent, startMs, undelivered, useReceiver, useWebhook, webhookSecret } from "../support/webhook.ts";

const receiver = useReceiver();

describe("the webhook", () => {
  it("POSTs the facts of an event as JSON under a signature that the receiver can check", async () => {
    const { webhook } = useWebhook(receiver().url);
    webhook.sink(loginFailed({ at: startMs - 5 }));
    const call = await receiver().next();
    call.respond(204, "");
    await sent(webhook, 1);
    expect([call.method, call.url]).toEqual(["POST", "/hooks/path-secret?key=query-secret"]);
    expect(call.headers["content-type"]).toBe("application/json");
    expect(call.body).toEqual({
      id: "id-1",
      at: "2026-11-22T09:59:59.995Z",
      event: "login.failed",
      trace_id: "trace-2",
      ip: "192.0.2.1",
      user: "alice",
      result: "failure",
      reason: "wrong password",
    });
    const unix = startMs / 1000;
    const hex = createHmac("sha256", webhookSecret).update(`${unix}.`).update(call.rawBody).digest("hex");
    expect(call.headers["x-signature"]).toBe(`t=${unix},v1=${hex}`);
  });

  it.each([
    ["a text", webhookSecret, Buffer.from(webhookSecret)],
    ["whsec_ and Base64", `whsec_${Buffer.alloc(24, 7).toString("base64")}`, Buffer.alloc(24, 7)],
  ])("has the headers of Standard Webhooks, with a secret that is %s", async (_name, secret, key) => {
    const { webhook } = useWebhook(receiver().url, { secret });
    webhook.sink(loginFailed());
    const call = await receiver().next();
    call.respond(204, "");
    await sent(webhook, 1);
    const unix = startMs / 1000;
    const signed = createHmac("sha256", key).update(`id-1.${unix}.`).update(call.rawBody).digest("base64");
    expect(call.headers).toMatchObject({
      "webhook-id": "id-1",
      "webhook-timestamp": String(unix),
      "webhook-signature": `v1,${signed}`,
    });
  });

  it("sends only events about the users and providers that it is asked for, or about none", async () => {
    const { webhook } = useWebhook(receiver().url, {
      events: ["login.failed", "provider.alert", "overload.began"],
      users: ["team-*"],
      providers: ["deepseek"],
    });
    const base = { at: startMs, traceId: "", ip: "" };
    webhook.sink(loginFailed({ user: "alice" }));
    webhook.sink(loginFailed({ user: "team-1" }));
    // As a login through an identity provider that fails.
    webhook.sink(loginFailed({ user: "" }));
    for (const provider of ["zhipu", "deepseek"])
      webhook.sink({ ...base, type: "provider.alert", provider, key: 0, kind: "no_balance" });
    webhook.sink({ ...base, type: "overload.began", level: 1, reason: "heap" });
    const [ofTeam, ofNobody] = [{ user: "team-1" }, { event: "login.failed" }];
    for (const expected of [ofTeam, ofNobody, { provider: "deepseek" }, { event: "overload.began" }]) {
      const call = await receiver().next();
      expect(call.body).toMatchObject(expected);
      call.respond(200, "ok");
    }
    await sent(webhook, 4);
  });

  it("keeps what nobody took, with the reason and without the URL's secrets", async () => {
    const file = join(tempDir(), "undelivered.jsonl");
    const deadLetters = createDeadLetters({ file, maxBytes: () => 1 << 20, log: createCapturedLog() });
    const { webhook } = useWebhook(receiver().url, { deadLetters });
    webhook.sink(loginFailed());
    (await receiver().next()).respond(410, "gone");
    await undelivered(webhook, 1);
    webhook.sink(loginFailed());
    await receiver().next();
    await webhook.close(0);
    const lines = (await readFile(file, "utf8")).trimEnd().split("\n");
    const { host } = new URL(receiver().url);
    expect(lines.map((line) => JSON.parse(line) as unknown)).toMatchObject([
      { host, result: 410, alert: { id: "id-1", event: "login.failed" } },
      { host, alert: { id: "id-2" } },
    ]);
    expect(lines.join()).not.toMatch(/path-secret|query-secret/);
  });

  it("sends only the chosen types of events, in order", async () => {
    const { webhook } = useWebhook(receiver().url);
    webhook.sink({
      type: "request.finished",
      route: "other",
      at: startMs,
      traceId: "t",
      ip: "",
      code: "not_found",
      status: 404,
    });
    for (const user of ["alice", "bob", "carol"]) webhook.sink(loginFailed({ user }));
    for (const user of ["alice", "bob", "carol"]) {
      const call = await receiver().next();
      expect(call.body.user).toBe(user);
      call.respond(200, "ok");
    }
    await sent(webhook, 3);
    expect(receiver().received).toBe(3);
  });

  it.each([500, 503, 429, 408])("sends it again after %i, with the same id", async (status) => {
    const { webhook } = useWebhook(receiver().url);
    webhook.sink(loginFailed());
    (await receiver().next()).respond(status, "later");
    const again = await receiver().next();
    expect(again.body.id).toBe("id-1");
    again.respond(200, "ok");
    await sent(webhook, 1);
  });

  it("waits as long as the receiver asks, and no longer than until it is closed", async () => {
    const { webhook } = useWebhook(receiver().url);
    webhook.sink(loginFailed());
    (await receiver().next()).respond(429, "later", { "retry-after": "600" });
    // Round trips beside the queue take longer than the pause without that.
    for (let i = 0; i < 10; i++) {
      const tested = webhook.test();
      const call = await receiver().next();
      expect(call.body).toMatchObject({ event: "alerts.test" });
      call.respond(200, "ok");
      expect(await tested).toMatchObject({ delivered: true });
    }
    const closed = webhook.close(10_000);
    const again = await receiver().next();
    expect(again.body.id).toBe("id-1");
    again.respond(200, "ok");
    await closed;
    expect(webhook.stats()).toMatchObject({ queued: 0, delivered: 1 });
  });

  it("sends it again after a broken connection and after a timeout", async () => {
    const { webhook } = useWebhook(receiver().url, { timeoutMs: 100 });
    webhook.sink(loginFailed());
    (await receiver().next()).reset();
    const silent = await receiver().next();
    await silent.closed;
    (await receiver().next()).respond(200, "ok");
    await sent(webhook, 1);
  });

  it("gives up after the last attempt, goes on with the next alert, and logs no secret", async () => {
    const { webhook, log } = useWebhook(receiver().url);
    webhook.sink(loginFailed());
    webhook.sink(loginFailed());
    for (let attempt = 0; attempt < 3; attempt += 1) (await receiver().next()).respond(500, "no");
    const next = await receiver().next();
    expect(next.body.id).toBe("id-2");
    next.respond(200, "ok");
    await sent(webhook, 1);
    expect(webhook.stats().dropped).toEqual({ queue_full: 0, undelivered: 1, closed: 0 });
    expect(log.lines).toMatchObject([{ level: "error", facts: { result: 500, undelivered: 1 } }]);
    expect(JSON.stringify(log.lines)).not.toMatch(/secret/);
  });

  it.each([400, 401, 404, 301, 307])("does not send it again after %i, and follows no redirect", async (status) => {
    const { webhook } = useWebhook(receiver().url);
    webhook.sink(loginFailed());
    (await receiver().next()).respond(status, "", { location: `${receiver().url}/elsewhere` });
    await undelivered(webhook, 1);
    expect(receiver().received).toBe(1);
  });

  it("sends an alert that comes at the moment at which the one before has been given up", async () => {
    const deadLetters = {
      add: (): Promise<void> => {
        queueMicrotask(() => {
          queueMicrotask(() => {
            webhook.sink(loginFailed());
          });
        });
        return Promise.resolve();
      },
    };
    const { webhook } = useWebhook(receiver().url, { deadLetters });
    webhook.sink(loginFailed());
    (await receiver().next()).respond(400, "");
    (await receiver().next()).respond(200, "");
    await sent(webhook, 1);
  });

  it("drops and counts what does not fit into its queue", async () => {
    const { webhook } = useWebhook(receiver().url, { maxQueued: 2 });
    for (let index = 0; index < 5; index += 1) webhook.sink(loginFailed());
    expect(webhook.stats()).toMatchObject({ queued: 2, dropped: { queue_full: 3 } });
    (await receiver().next()).respond(200, "ok");
    (await receiver().next()).respond(200, "ok");
    await sent(webhook, 2);
  });

  it("does not read an answer without end", async () => {
    const { webhook } = useWebhook(receiver().url);
    webhook.sink(loginFailed());
    const call = await receiver().next();
    call.head(200, { "content-type": "text/plain" });
    let gone = false;
    void call.closed.then(() => (gone = true));
    await eventually(() => {
      if (!gone) call.send(Buffer.alloc(64 << 10)).catch(() => undefined);
      expect(gone).toBe(true);
    });
    await sent(webhook, 1);
  });

  it("sends what waits when it is closed, and takes no more", async () => {
    const { webhook } = useWebhook(receiver().url);
    for (let index = 0; index < 3; index += 1) webhook.sink(loginFailed());
    const closed = webhook.close(60_000);
    for (let index = 0; index < 3; index += 1) (await receiver().next()).respond(200, "ok");
    await closed;
    webhook.sink(loginFailed());
    expect(webhook.stats()).toEqual({
      queued: 0,
      delivered: 3,
      dropped: { queue_full: 0, undelivered: 0, closed: 1 },
    });
  });

  it("does not wait out a pause when it is closed, but tries once more", async () => {
    let pauses = 0;
    const { webhook } = useWebhook(receiver().url, { firstRetryMs: 60_000, random: () => (pauses += 1) });
    webhook.sink(loginFailed());
    (await receiver().next()).respond(500, "no");
    await eventually(() => {
      expect(pauses).toBe(1);
    });
    const closed = webhook.close(60_000);
    (await receiver().next()).respond(200, "ok");
    await closed;
    expect(webhook.stats().delivered).toBe(1);
  });

  it("gives up at the deadline of its closing on a receiver that does not answer", async () => {
    const { webhook } = useWebhook(receiver().url);
    for (let index = 0; index < 3; index += 1) webhook.sink(loginFailed());
    const call = await receiver().next();
    await webhook.close(1);
    await call.closed;
    expect(webhook.stats()).toMatchObject({ queued: 0, delivered: 0, dropped: { closed: 3 } });
  });
});
