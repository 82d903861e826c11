import { AppError } from "../../src/errors.ts";
import type { LoginAttempt } from "../../src/identity/login-guard.ts";
import {
  createMemoryLoginGuard,
  type MemoryLoginGuard,
  type MemoryLoginGuardOptions,
} from "../../src/identity/memory/memory-login-guard.ts";
import { createManualClock } from "./manual-clock.ts";

type GuardEvent = Parameters<MemoryLoginGuardOptions["emit"]>[0];

export const minute = 60_000;
export const rule = { freeFailures: 5, firstWaitMs: 1000, maxWaitMs: 15 * minute, quietMs: 60 * minute };

/** An attempt at alice, bob or a name that has no account. */
export function attemptOf(user: string, ip: string): LoginAttempt {
  return { user, known: user === "alice" || user === "bob", ip, traceId: "t" };
}

/** How long an attempt would have to wait; null: not at all. */
export function waitOf(guard: MemoryLoginGuard, user: string, ip: string): { readonly retryAfterMs: number } | null {
  try {
    guard.check(attemptOf(user, ip));
    return null;
  } catch (error) {
    if (!(error instanceof AppError)) throw error;
    return { retryAfterMs: Math.round((error.extras.retryAfterSeconds ?? 0) * 1000) };
  }
}

/** A guard over the accounts alice and bob. */
export function useGuard(changes: Partial<MemoryLoginGuardOptions> = {}) {
  const clock = createManualClock(1_000_000);
  const events: GuardEvent[] = [];
  const own = createMemoryLoginGuard({
    rule,
    maxTracked: 1000,
    knownAddressMs: 24 * 60 * minute,
    isShared: (ip) => ip === "127.0.0.1",
    clock,
    emit: (event) => events.push(event),
    ...changes,
  });

  const guard = { ...own, check: (user: string, ip: string) => waitOf(own, user, ip) };

  /** Begins an attempt as the login does it, or says how long it would have to wait. */
  function begin(user: string, ip: string): ReturnType<MemoryLoginGuard["start"]> | number {
    return guard.check(user, ip)?.retryAfterMs ?? guard.start(attemptOf(user, ip));
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
