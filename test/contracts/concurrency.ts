import { describe, expect, it } from "vitest";
import { ClientDisconnectedError, type DisconnectSignal } from "../../src/lib/disconnect-signal.ts";
import type { ConcurrencyLimiter, PermitKind, PermitRequest, PermitScope } from "../../src/limits/concurrency.ts";
import { attempt } from "../support/attempt.ts";
import { eventually } from "../support/eventually.ts";

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

/**
 * What every concurrency limiter does.
 *
 * @param open a new one; requests may wait for a minute, or so many ms
 */
export function describeConcurrency(
  name: string,
  open: (rule: {
    readonly maxWaitMs: number;
    readonly maxWaiting: number;
    readonly maxWaitingTotal: number;
  }) => Promise<ConcurrencyLimiter>,
): void {
  const patient = { maxWaitMs: 60_000, maxWaiting: 8, maxWaitingTotal: 100 };
  const impatient = { maxWaitMs: 0, maxWaiting: 8, maxWaitingTotal: 100 };
  const acquire = (limiter: ConcurrencyLimiter, request = alice, signal: DisconnectSignal = client()) =>
    attempt(() => limiter.acquire(request, signal));
  const waitingAre = (limiter: ConcurrencyLimiter, count: number) =>
    eventually(() => {
      expect(limiter.waiting()).toBe(count);
    });

  describe(name, () => {
    it("gives each user so many permits, and another one once one is released, however often", async () => {
      const limiter = await open(impatient);
      const permit = await acquire(limiter);
      await acquire(limiter, requestOf("bob", 1));
      await expect(acquire(limiter)).rejects.toMatchObject({ code: "concurrency_exceeded", status: 429 });
      await permit.release();
      await permit.release();
      await acquire(limiter);
      await expect(acquire(limiter)).rejects.toMatchObject({ code: "concurrency_exceeded" });
      expect(limiter.inFlight()).toBe(2);
    });

    it("serves who waits once the cap of the user is raised, though nobody releases anything", async () => {
      const limiter = await open(patient);
      let max = 1;
      const request = { ...alice, maxNow: ({ key }: PermitScope) => Promise.resolve(key === "alice" ? max : 1) };
      await acquire(limiter, request);
      const second = acquire(limiter, request);
      const third = acquire(limiter, request);
      await waitingAre(limiter, 2);
      max = 2;
      await second;
      await waitingAre(limiter, 1);
      max = 3;
      await third;
      expect(limiter.inFlight()).toBe(3);
    });

    it.each<[PermitKind, number]>([
      ["group", 2],
      ["model", Infinity],
      ["process", Infinity],
      ["provider", Infinity],
    ])("serves who waits once the cap of the %s is %d", async (kind, raised) => {
      const limiter = await open(patient);
      let max = 1;
      const maxNow = (scope: PermitScope) => (scope.kind === kind ? max : scope.max);
      const scope = { kind, key: kind === "process" ? "" : "g", max };
      const request = requestOf("alice", 9);
      const own =
        kind === "provider" ? { ...request, providers: [scope] } : { ...request, scopes: [...request.scopes, scope] };
      const held = await acquire(limiter, own);
      const second = acquire(limiter, { ...own, maxNow });
      await waitingAre(limiter, 1);
      max = raised;
      const permit = await second;
      expect(limiter.inFlight()).toBe(2);
      await held.release();
      await permit.release();
      await (await acquire(limiter, own)).release();
      expect(limiter.inFlight()).toBe(0);
    });

    it("keeps the cap of who waits where it cannot be looked up", async () => {
      const limiter = await open(patient);
      let asked = 0;
      const maxNow = () => {
        asked++;
        return Promise.reject(new Error("away"));
      };
      const permit = await acquire(limiter, { ...alice, maxNow });
      const second = acquire(limiter, { ...alice, maxNow });
      await eventually(() => {
        expect(asked).toBeGreaterThan(0);
      });
      expect(limiter.waiting()).toBe(1);
      await permit.release();
      await second;
    });

    it("gives no more permits at once than one after the other", async () => {
      const limiter = await open(impatient);
      const all = await Promise.allSettled(Array.from({ length: 50 }, () => acquire(limiter, requestOf("alice", 3))));
      expect(all.filter(({ status }) => status === "fulfilled")).toHaveLength(3);
      expect(limiter.inFlight()).toBe(3);
    });

    it("serves those who wait in the order in which they came, up to a number", async () => {
      const limiter = await open({ ...patient, maxWaiting: 2 });
      const first = await acquire(limiter);
      const served: string[] = [];
      const waiting = ["second", "third"].map(async (label) => {
        const permit = await acquire(limiter);
        served.push(label);
        await permit.release();
      });
      await waitingAre(limiter, 2);
      await expect(acquire(limiter)).rejects.toMatchObject({ code: "concurrency_exceeded" });
      await first.release();
      await Promise.all(waiting);
      expect(served).toEqual(["second", "third"]);
      expect([limiter.inFlight(), limiter.waiting()]).toEqual([0, 0]);
    });

    it("refuses who has waited too long", async () => {
      const limiter = await open({ maxWaitMs: 1, maxWaiting: 8, maxWaitingTotal: 100 });
      await acquire(limiter);
      await expect(acquire(limiter)).rejects.toMatchObject({ code: "concurrency_exceeded" });
      expect(limiter.waiting()).toBe(0);
    });

    it("lets a client out of the queue that disconnects, and refuses one that has", async () => {
      const limiter = await open(patient);
      const first = await acquire(limiter);
      const leaver = client();
      const left = acquire(limiter, alice, leaver);
      await waitingAre(limiter, 1);
      const next = acquire(limiter);
      await waitingAre(limiter, 2);
      leaver.gone = true;
      leaver.onGone?.();
      await expect(left).rejects.toBeInstanceOf(ClientDisconnectedError);
      await first.release();
      await (await next).release();
      await expect(acquire(limiter, alice, leaver)).rejects.toBeInstanceOf(ClientDisconnectedError);
      expect(limiter.inFlight()).toBe(0);
    });

    it("refuses those who wait and those who come once it is closed; what is held can be released", async () => {
      const limiter = await open(patient);
      const held = await acquire(limiter);
      const refused = expect(acquire(limiter)).rejects.toMatchObject({ code: "shutting_down" });
      await waitingAre(limiter, 1);
      limiter.close();
      await refused;
      await expect(acquire(limiter)).rejects.toMatchObject({ code: "shutting_down" });
      await held.release();
      expect([limiter.inFlight(), limiter.waiting()]).toEqual([0, 0]);
    });
  });
}
