import { rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { z } from "zod";
import { eventTypes, type EventType } from "../../src/events/catalogue.ts";
import type { Envelope } from "../../src/events/envelope.ts";
import { envelopeFields, payloads } from "../../src/events/payloads.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { logIn, refresh } from "../support/accounts.ts";
import { startAdminApi } from "../support/admin-api.ts";
import { eventually } from "../support/eventually.ts";
import { openStream } from "../support/sse-client.ts";
import { alicePassword, bearer, post, userFile } from "../support/start-proxy.ts";

const config = `
[quota.tiers.basic]
requests = 100
[quota.tiers.small]
requests = 1

[alerts]
webhook_url = "http://127.0.0.1:1/"
allow_private = true
max_attempts = 1
events = ["password.changed"]

[security]
registration = "invitation"
login_free_failures = 1
login_first_wait_seconds = 600

[[limits]]
name = "each_user"
by = "user"
metric = "requests"
per = "hour"
max = 2

[risk]
enabled = true
start = "normal"
min_requests = 1
[[risk.steps]]
name = "careful"
[[risk.steps]]
name = "normal"
[risk.signals.failures]
points = 100
from = 0
to = 1
`;

/** A user for each act that would spoil others. */
const userNames = ["careless", "invalid", "fast", "robbed", "keyed", "fresh"];

test("every event of the catalogue happens in a real proxy, and is as its schema says", async () => {
  let ahead = 0;
  let heapShare = 0;
  const { proxy, as } = await startAdminApi({
    config,
    configFile: true,
    env: { ALERT_WEBHOOK_SECRET: "a secret of the webhook, long enough" },
    clock: { now: () => systemClock.now() + ahead, monotonic: () => systemClock.monotonic() + ahead },
    readLoad: () => ({ loopDelayMs: 0, heapShare, descriptorShare: 0 }),
    users: {
      small: userFile("small", alicePassword).replace("basic", "small"),
      ...Object.fromEntries(userNames.map((name) => [name, userFile(name, alicePassword)])),
    },
  });
  const { url } = proxy;

  const chat = (user: string, model = "sim-fast") =>
    as(user, "POST", "/chat/completions", { model, stream: false, messages: [{ role: "user", content: "hi" }] });
  const tryLogin = (password: string) => post(`${url}/auth/login`, { username: "careless", password });
  const reload = async (more: string) => {
    const path = join(proxy.folder, "config.toml");
    await writeFile(`${path}.new`, proxy.configText(config + more));
    await rename(`${path}.new`, path);
    return as("boss", "POST", "/admin/config/reload");
  };

  /** What makes each of them happen. The types need an act for each type; the order is that of the acts. */
  const acts: Readonly<Record<EventType, () => Promise<unknown>>> = {
    "chat.finished": () => chat("alice"),
    "request.finished": () => as("alice", "GET", "/auth/quota"),
    "login.succeeded": () => logIn(proxy, "alice", alicePassword, "another program"),
    "user.registered": async () => {
      const made = await as("boss", "POST", "/admin/codes", { kind: "invitation", name: "newcomers" });
      await post(`${url}/auth/register`, { code: made.body.codes[0], username: "newcomer", password: alicePassword });
    },
    "login.failed": () => tryLogin("a wrong password"),
    "login.locked": () => tryLogin("another wrong password"),
    "login.unlocked": () => as("boss", "POST", "/admin/users/careless/unlock"),
    "session.reuse_detected": async () => {
      const { refresh_token: stolen } = await logIn(proxy, "robbed", alicePassword);
      await refresh(proxy, stolen);
      ahead += 60_000;
      await refresh(proxy, stolen);
    },
    "session.ended": async () => {
      const { refresh_token } = await logIn(proxy, "alice", alicePassword, "a third program");
      await post(`${url}/auth/logout`, { refresh_token });
    },
    "api_key.created": () => as("keyed", "POST", "/auth/keys", { name: "laptop" }),
    "api_key.revoked": async () => {
      const { body } = await as("keyed", "GET", "/auth/keys");
      await as("keyed", "DELETE", `/auth/keys/${body.keys[0].id}`);
    },
    "password.changed": () =>
      as("fresh", "POST", "/auth/password", { current_password: alicePassword, new_password: "a fresh set of words" }),
    "admin.changed": () => as("boss", "PATCH", "/admin/users/alice", { max_parallel: 3 }),
    "quota.exceeded": async () => {
      for (let i = 0; i < 2; i++) await chat("small");
    },
    "rate_limit.rejected": async () => {
      for (let i = 0; i < 3; i++) await chat("fast");
    },
    "trust.changed": async () => {
      for (let i = 0; i < 2; i++) await chat("invalid", "sim-400");
    },
    "config.reloaded": () => reload("[retry]\nattempts = 4\n"),
    "config.rejected": () => reload("[retry]\nattempts = 400\n"),
    "overload.began": () => Promise.resolve((heapShare = 0.9)),
    "overload.ended": () => Promise.resolve((heapShare = 0)),
    "provider.alert": () => chat("bob", "sim-402"),
    "events.lost": async () => {
      await eventually(() => {
        expect(proxy.services.alertStats()?.dropped.undelivered).toBe(1);
      });
      proxy.services.reportLosses();
    },
  };

  const feed = await openStream(`${url}/admin/events`, { headers: bearer(await proxy.login("chief")) });
  onTestFinished(() => {
    feed.leave();
  });
  const seen = (): Envelope[] =>
    Array.from(feed.text.matchAll(/^data: (.*)\n\n/gm), ([, data = ""]) => JSON.parse(data) as Envelope);
  for (const [type, act] of Object.entries(acts)) {
    await act();
    await eventually(() => {
      expect(seen().map((event) => event.type)).toContain(type);
    });
  }

  const events = seen();
  expect(new Set(events.map(({ type }) => type))).toEqual(new Set(eventTypes));
  for (const event of events) {
    const { data, version } = payloads[event.type];
    const schema = z.strictObject({ ...envelopeFields, version: z.literal(version), data });
    expect(schema.safeParse(event), JSON.stringify(event)).toMatchObject({ success: true });
  }
}, 60_000);
