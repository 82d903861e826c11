import { createHmac } from "node:crypto";
import { afterEach, describe, expect, it } from "vitest";
import { systemClock } from "../../src/lib/clock.ts";
import { startScriptedUpstream } from "../support/scripted-upstream.ts";
import { alicePassword, startProxy, type ProxyOptions, type RunningProxy } from "../support/start-proxy.ts";

let proxy: RunningProxy;
afterEach(() => proxy.dispose());

const secret = "a-secret-of-the-webhook";
const trusting = { server: 'trust_proxy = ["127.0.0.1"]\n' };

/**
 * A proxy behind a reverse proxy that names the client, and a clock that stands until it is moved on: however slow the
 * machine is, no wait is over by itself.
 */
async function start(options: ProxyOptions = {}) {
  let ahead = 0;
  const [now, monotonic] = [systemClock.now(), systemClock.monotonic()];
  const clock = { now: () => now + ahead, monotonic: () => monotonic + ahead };
  proxy = await startProxy({ ...trusting, clock, ...options });

  async function logIn(ip: string, password = "wrong password", username = "alice") {
    const response = await fetch(`${proxy.url}/auth/login`, {
      method: "POST",
      headers: { "content-type": "application/json", "x-forwarded-for": ip },
      body: JSON.stringify({ username, password }),
    });
    const body = (await response.json()) as { error?: { code: string } };
    return { status: response.status, code: body.error?.code, retryAfter: response.headers.get("retry-after") };
  }

  return {
    logIn,
    advance: (ms: number) => {
      ahead += ms;
    },
  };
}

describe("guessing at a password", () => {
  it("from a hundred addresses is refused after five, and lets the owner in from an address of his own", async () => {
    const { logIn, advance } = await start();
    expect((await logIn("192.0.2.7", alicePassword)).status).toBe(200);
    const codes: (string | undefined)[] = [];
    for (let index = 0; index < 100; index += 1) codes.push((await logIn(`198.51.100.${index}`)).code);
    expect(codes.filter((code) => code === "invalid_credentials").length).toBeLessThanOrEqual(6);
    expect(codes.at(-1)).toBe("login_blocked");
    expect(await logIn("203.0.113.9", alicePassword)).toMatchObject({ status: 429, retryAfter: expect.any(String) });
    expect((await logIn("192.0.2.7", alicePassword)).status).toBe(200);
    advance(2 * 3_600_000);
    expect((await logIn("203.0.113.9", alicePassword)).status).toBe(200);
  });

  it("is told to the webhook under a signature, and to the log and the metrics", async () => {
    const receiver = await startScriptedUpstream();
    const { logIn } = await start({
      config: `[alerts]\nwebhook_url = "${receiver.url}/alerts"\nallow_private = true\n`,
      env: { ALERT_WEBHOOK_SECRET: secret },
    });
    for (let index = 0; index < 6; index += 1) await logIn(`198.51.100.${index}`);
    const call = await receiver.next();
    call.respond(204, "");
    expect(call.body).toMatchObject({
      event: "login.locked",
      user: "alice",
      scope: "account",
      failures: 5,
      ip: "198.51.100.4",
      trace_id: expect.any(String),
    });
    const [, unix, hex] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(String(call.headers["x-signature"])) ?? [];
    expect(createHmac("sha256", secret).update(`${unix}.`).update(call.rawBody).digest("hex")).toBe(hex);
    const metrics = await (await fetch(`${proxy.url}/metrics`)).text();
    expect(metrics).toContain('login_attempts_total{result="blocked"} 1');
    expect(proxy.logLines.join("")).toContain("too many failed logins");
    expect(proxy.logLines.join("")).not.toContain(secret);
    await proxy.stop();
    const page = await proxy.services.behaviour.page({ user: "alice", type: "login.locked", limit: 5 });
    expect(page.events).toMatchObject([{ event: "login.locked", failures: 5 }]);
    await receiver.close();
  });
});
