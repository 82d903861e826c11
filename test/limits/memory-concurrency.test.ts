import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { ClientDisconnectedError, type DisconnectSignal } from "../../src/lib/disconnect-signal.ts";
import { createMemoryConcurrency } from "../../src/limits/memory/memory-concurrency.ts";
import type { Permit, PermitRequest } from "../../src/limits/concurrency.ts";

interface Client extends DisconnectSignal {
  gone: boolean;
}

const client = (): Client => ({ gone: false, onGone: undefined });
const requestOf = (user: string, max: number): PermitRequest => ({
  requestId: "r",
  user,
  weight: 1,
  providers: [],
  scopes: [{ kind: "user", key: user, max }],
});
const alice = requestOf("alice", 1);
const open = (rule: { readonly maxWaitMs: number; readonly maxWaiting: number }) =>
  createMemoryConcurrency({ rule: { ...rule, maxWaitingTotal: 1000 }, now: () => Date.now() });

function leave(who: Client): void {
  who.gone = true;
  who.onGone?.();
}

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

describe("memory permits", () => {
  test("a free permit is there at once, without a promise", () => {
    const permits = open({ maxWaitMs: 1000, maxWaiting: 8 });
    const permit = permits.acquire(alice, client());
    expect(permit).not.toBeInstanceOf(Promise);
    expect(permits.inFlight()).toBe(1);
    void (permit as Permit).release();
    void (permit as Permit).release();
    expect(permits.inFlight()).toBe(0);
  });

  test("one user's permits are no business of another's", () => {
    const permits = open({ maxWaitMs: 0, maxWaiting: 8 });
    void permits.acquire(alice, client());
    expect(permits.acquire(requestOf("bob", 1), client())).toHaveProperty("release");
    expect(() => permits.acquire(alice, client())).toThrow(expect.objectContaining({ code: "concurrency_exceeded" }));
  });

  test("those who wait are served in the order they came", async () => {
    const permits = open({ maxWaitMs: 1000, maxWaiting: 8 });
    const first = await permits.acquire(alice, client());
    const second = permits.acquire(alice, client());
    const third = permits.acquire(alice, client());
    expect(permits.waiting()).toBe(2);
    void first.release();
    void (await second).release();
    void (await third).release();
    expect([permits.inFlight(), permits.waiting(), vi.getTimerCount()]).toEqual([0, 0, 0]);
  });

  test("who has waited too long is refused with a time to come back", async () => {
    const permits = open({ maxWaitMs: 1000, maxWaiting: 8 });
    void permits.acquire(alice, client());
    const waiting = client();
    const late = expect(permits.acquire(alice, waiting)).rejects.toMatchObject({
      code: "concurrency_exceeded",
      status: 429,
      extras: { retryAfterSeconds: 1 },
    });
    await vi.advanceTimersByTimeAsync(1000);
    await late;
    expect(permits.waiting()).toBe(0);
    expect(waiting.onGone).toBeUndefined();
  });

  test("one more than may wait is refused at once", () => {
    const permits = open({ maxWaitMs: 1000, maxWaiting: 1 });
    void permits.acquire(alice, client());
    void permits.acquire(alice, client());
    expect(() => permits.acquire(alice, client())).toThrow(expect.objectContaining({ code: "concurrency_exceeded" }));
    expect(permits.waiting()).toBe(1);
  });

  test("a client that leaves while it waits is out of the line at once", async () => {
    const permits = open({ maxWaitMs: 1000, maxWaiting: 8 });
    const first = await permits.acquire(alice, client());
    const leaver = client();
    const left = permits.acquire(alice, leaver);
    const next = permits.acquire(alice, client());
    leave(leaver);
    expect(permits.waiting()).toBe(1);
    await expect(left).rejects.toBeInstanceOf(ClientDisconnectedError);
    void first.release();
    expect(await next).toHaveProperty("release");
    expect(() => permits.acquire(alice, leaver)).toThrow(ClientDisconnectedError);
    expect(permits.inFlight()).toBe(1);
  });

  test("a client that leaves just after its turn came holds a permit like any other", async () => {
    const permits = open({ maxWaitMs: 1000, maxWaiting: 8 });
    const first = await permits.acquire(alice, client());
    const leaver = client();
    const granted = permits.acquire(alice, leaver);
    void first.release();
    leave(leaver);
    expect(permits.inFlight()).toBe(1);
    void (await granted).release();
    expect(permits.inFlight()).toBe(0);
  });

  test("a raised maximum lets those who wait in; a lowered one turns nobody out", async () => {
    const permits = open({ maxWaitMs: 1000, maxWaiting: 8 });
    const first = await permits.acquire(alice, client());
    const second = permits.acquire(alice, client());
    const third = permits.acquire(requestOf("alice", 3), client());
    expect(permits.inFlight()).toBe(3);
    const fourth = permits.acquire(alice, client());
    void first.release();
    void (await second).release();
    expect(permits.waiting()).toBe(1);
    void (await third).release();
    expect(await fourth).toHaveProperty("release");
    expect(permits.inFlight()).toBe(1);
  });

  test("closing refuses those who wait and those who come; what is held can be given back", async () => {
    const permits = open({ maxWaitMs: 1000, maxWaiting: 8 });
    const held = await permits.acquire(alice, client());
    const refused = expect(permits.acquire(alice, client())).rejects.toMatchObject({ code: "shutting_down" });
    permits.close();
    await refused;
    expect(() => permits.acquire(alice, client())).toThrow(expect.objectContaining({ code: "shutting_down" }));
    void held.release();
    expect([permits.inFlight(), permits.waiting(), vi.getTimerCount()]).toEqual([0, 0, 0]);
  });
});
