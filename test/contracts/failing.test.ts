import { randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";
import type { Backends } from "../../src/backends.ts";
import { parseConfig } from "../../src/config/load.ts";
import { openBackends } from "../../src/open-backends.ts";
import { closeAll, type Closer } from "../../src/lib/close-all.ts";
import { attempt, refusalOf } from "../support/attempt.ts";
import { slowBackends } from "../support/backends.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { ask, charge, monthly, settlement } from "../support/ledger.ts";
import { attemptOf } from "../support/login-guard.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { rateAsk, refusalIn, ticketOf, unsent } from "../support/rates.ts";
import { tempDir } from "../support/temp-dir.ts";
import { bob, laptop } from "../identity/session-support.ts";
import { fakeHash } from "../identity/support.ts";

/** Backends of which one verb fails once, as a lost connection does: before the call, or after it was carried out. */
async function useFailing(
  verb: string,
  when: "before" | "after",
  work: (backends: Backends) => Promise<void>,
): Promise<void> {
  const closers: Closer[] = [];
  let failures = 1;
  const { auth, panel, security, ...config } = parseConfig("", "test.toml");
  const { backends } = await openBackends({
    given: (own) =>
      slowBackends(own, (call, carryOut) => {
        if (call !== verb || failures === 0) return Promise.resolve();
        failures -= 1;
        const lost = () => Promise.reject(new Error("the connection is lost"));
        return when === "before" ? lost() : carryOut().then(lost);
      }),
    usersDir: tempDir(),
    config: { ...config, auth, panel, security },
    auth: () => auth,
    panel: () => panel,
    security: () => security,
    tierNames: () => ["basic"],
    hashPassword: (password) => Promise.resolve(fakeHash(password)),
    clock: createManualClock(Date.UTC(2026, 10, 22)),
    log: createCapturedLog(),
    emit: () => undefined,
    newId: randomUUID,
    onOpen: (close) => closers.push(close),
  });
  try {
    await work(backends);
  } finally {
    await closeAll(closers);
  }
}

const newUser = { username: "bob", password: "correct horse", quota_tier: "basic" };
const signal = { gone: false, onGone: undefined };

describe("a call that fails is storage_unavailable once, and the next one works", () => {
  it.each<readonly [string, (backends: Backends) => unknown]>([
    ["reserve", ({ ledger }) => ledger.reserve(ask())],
    ["buckets", ({ ledger }) => ledger.buckets("bob", [])],
    ["usage", ({ ledger }) => ledger.usage({ from: "2026-11-01", to: "2026-11-22" })],
    ["reset", ({ ledger }) => ledger.reset("bob", "day", { reason: "", by: "" })],
    ["take", ({ rateLimiter }) => rateLimiter.take(rateAsk())],
    ["takeFreeDisconnect", ({ rateLimiter }) => rateLimiter.takeFreeDisconnect({ ...rateAsk(), max: 1 })],
    [
      "acquire",
      ({ concurrency }) =>
        concurrency.acquire({ user: "bob", weight: 1, requestId: "r", scopes: [], providers: [] }, signal),
    ],
    ["get", ({ users }) => users.get("bob")],
    ["create", ({ users }) => users.create(newUser)],
    ["search", ({ users }) => users.search({ limit: 1 })],
    ["open", ({ sessions }) => sessions.open(bob, laptop)],
    ["isLive", ({ sessions }) => sessions.isLive("none")],
    ["endAll", ({ sessions }) => sessions.endAll("bob")],
    ["revokeAll", ({ apiKeys }) => apiKeys.revokeAll("bob")],
    ["check", ({ loginGuard }) => loginGuard.check(attemptOf("bob", "192.0.2.1"))],
    ["start", ({ loginGuard }) => loginGuard.start(attemptOf("bob", "192.0.2.1"))],
    ["use", ({ nonces }) => nonces.use("k", "nonce", 1_795_305_600)],
  ])("%s", async (verb, call) => {
    await useFailing(verb, "before", async (backends) => {
      const { code, cause } = await refusalOf(() => call(backends));
      expect(code).toBe("storage_unavailable");
      expect(cause).toMatchObject({ message: "the connection is lost" });
      await call(backends);
    });
  });
});

describe("what was carried out though its result was lost", () => {
  const limits = [monthly(500), { metric: "tokens", per: "day", max: 1000 } as const];
  const used = async ({ ledger }: Backends) => (await ledger.buckets("alice", limits)).map((bucket) => bucket.used);

  it("is rolled back by a settle that charges nothing, where it was the first charge", async () => {
    await useFailing("commit", "after", async (backends) => {
      const hold = await backends.ledger.reserve(ask({ limits, upperBound: charge(1, 100) }));
      expect((await refusalOf(() => hold.commit(charge(1, 10)))).code).toBe("storage_unavailable");
      await hold.settle(settlement(charge(0), "refused"));
      expect(await backends.ledger.buckets("alice", limits)).toMatchObject([
        { used: 0, reserved: 0 },
        { used: 0, reserved: 0 },
      ]);
    });
  });

  it("is charged once, where it was the final charge", async () => {
    await useFailing("settle", "after", async (backends) => {
      const hold = await backends.ledger.reserve(ask({ limits, upperBound: charge(1, 100) }));
      await hold.commit(charge(1, 10));
      await refusalOf(() => hold.settle(settlement(charge(1, 70))));
      await hold.settle(settlement(charge(1, 70)));
      expect(await used(backends)).toEqual([1, 70]);
    });
  });

  it("is released with the rest, where the hold had grown", async () => {
    await useFailing("grow", "after", async (backends) => {
      const hold = await backends.ledger.reserve(ask({ limits, upperBound: charge(1, 100) }));
      await hold.commit(charge(1, 10));
      await refusalOf(() => hold.grow(charge(0, 500)));
      await hold.settle(settlement(charge(0), "upstream_failed"));
      expect(await backends.ledger.buckets("alice", limits)).toMatchObject([{ reserved: 0 }, { reserved: 0, used: 0 }]);
    });
  });

  it("lapses with time, where it is the correction of a rate", async () => {
    await useFailing("settle", "before", async ({ rateLimiter }) => {
      const ticket = ticketOf(await rateLimiter.take(rateAsk()));
      expect((await refusalOf(() => ticket.settle(unsent))).code).toBe("storage_unavailable");
      expect(refusalIn(await rateLimiter.take(rateAsk()))).toBeNull();
    });
  });

  it("is a refusal of the storage, where it was the move of a rate", async () => {
    await useFailing("move", "before", async ({ rateLimiter }) => {
      const ticket = ticketOf(await rateLimiter.take(rateAsk()));
      expect((await refusalOf(async () => ticket.move("q"))).code).toBe("storage_unavailable");
      expect(await ticket.move("q")).toBeNull();
    });
  });

  it("leaves a refresh token valid, within the leeway", async () => {
    await useFailing("refresh", "after", async ({ sessions, users }) => {
      const account = await users.create(newUser);
      const { refreshToken } = await sessions.open(account, laptop);
      await refusalOf(() => sessions.refresh(refreshToken, laptop));
      expect((await sessions.refresh(refreshToken, laptop)).account).toEqual(account);
    });
  });

  it("leaves a user made once, and a revoked key revoked", async () => {
    await useFailing("create", "after", async ({ users }) => {
      await refusalOf(() => users.create(newUser));
      expect(await users.names()).toEqual(["bob"]);
    });
    await useFailing("revoke", "after", async ({ apiKeys }) => {
      const { key, text } = await apiKeys.create(bob, { name: "x" });
      await refusalOf(() => apiKeys.revoke("bob", key.id));
      await expect(attempt(() => apiKeys.find(text))).rejects.toMatchObject({ code: "invalid_api_key" });
    });
  });
});
