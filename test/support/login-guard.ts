import { createLoginGuard, type LoginGuardOptions, type LoginTry } from "../../src/identity/login/login-guard.ts";
import { createManualClock } from "./manual-clock.ts";

type GuardEvent = Parameters<LoginGuardOptions["emit"]>[0];

export const minute = 60_000;
export const rule = { freeFailures: 5, firstWaitMs: 1000, maxWaitMs: 15 * minute, quietMs: 60 * minute };

/** A guard over the accounts alice and bob. */
export function useGuard(changes: Partial<LoginGuardOptions> = {}) {
  const clock = createManualClock(1_000_000);
  const events: GuardEvent[] = [];
  const guard = createLoginGuard({
    rule,
    maxTracked: 1000,
    knownAddressMs: 24 * 60 * minute,
    isShared: (ip) => ip === "127.0.0.1",
    hasAccount: (user) => user === "alice" || user === "bob",
    clock,
    emit: (event) => events.push(event),
    ...changes,
  });

  /** Begins an attempt as the login does it, or says how long it would have to wait. */
  function begin(user: string, ip: string): LoginTry | number {
    return guard.check(user, ip)?.retryAfterMs ?? guard.start({ user, ip, traceId: "t" });
  }

  /** A whole attempt; "refused" where it was not let in. */
  function attempt(user: string, ip: string, right = false): "refused" | "checked" {
    const one = begin(user, ip);
    if (typeof one === "number") return "refused";
    if (right) one.succeeded();
    else one.failed();
    return "checked";
  }

  function fail(times: number, user: string, ip: (index: number) => string): string[] {
    return Array.from({ length: times }, (_, index) => attempt(user, ip(index)));
  }

  return { clock, events, guard, begin, attempt, fail };
}

/** One of many addresses. */
export const address = (index: number): string => `198.51.${100 + (index >> 8)}.${index & 255}`;
export const home = (): string => "192.0.2.1";
