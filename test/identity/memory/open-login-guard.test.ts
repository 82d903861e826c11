import { describe, expect, it } from "vitest";
import { openMemoryLoginGuard } from "../../../src/identity/memory/memory-login-guard.ts";
import { parseConfig } from "../../../src/config/load.ts";
import { attemptOf, waitOf } from "../../support/login-guard.ts";
import { createManualClock } from "../../support/manual-clock.ts";

function open(lines: string) {
  const { security } = parseConfig(`[security]\n${lines}`, "config.toml");
  const guard = openMemoryLoginGuard(() => security, {
    clock: createManualClock(),
    emit: () => undefined,
  });
  let users = 0;
  /** Fails from one address at a new account each time, and says how long the next attempt has to wait. */
  return (times: number, ip: string): number => {
    const tries = Array.from({ length: times }, () => guard.start(attemptOf(`user${++users}`, ip)));
    for (const one of tries) one.failed();
    return waitOf(guard, "another", ip)?.retryAfterMs ?? 0;
  };
}

describe("the login guard of a config", () => {
  it("makes an address wait after five failures, but not this machine", () => {
    const failFrom = open("");
    expect([failFrom(4, "192.0.2.1"), failFrom(1, "192.0.2.1")]).toEqual([0, 1000]);
    expect([failFrom(50, "127.0.0.1"), failFrom(50, "::1")]).toEqual([0, 0]);
  });

  it("takes its numbers and its exempt addresses from the config", () => {
    const failFrom = open(
      'login_free_failures = 2\nlogin_first_wait_seconds = 7\nlogin_max_wait_seconds = 9\nlogin_exempt_addresses = ["10.0.0.0/8"]',
    );
    expect([failFrom(2, "127.0.0.1"), failFrom(3, "192.0.2.1"), failFrom(50, "10.1.2.3")]).toEqual([7000, 9000, 0]);
  });
});
