import { createHash, createHmac, randomUUID } from "node:crypto";
import { fc } from "../support/fast-check.ts";
import { describe, expect, it, onTestFinished } from "vitest";
import { createAuthenticate } from "../../src/identity/authenticate.ts";
import { openFileApiKeys } from "../../src/identity/files/file-api-keys.ts";
import { createMemoryNonces } from "../../src/identity/memory/memory-nonces.ts";
import { createSignatureCheck } from "../../src/identity/keys/request-signature.ts";
import type { Clock } from "../../src/lib/clock.ts";
import { bob, laptop, useSessions } from "../identity/session-support.ts";
import { jsonOf, logIn, refresh, statusOf } from "../support/accounts.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { useGuard } from "../support/login-guard.ts";
import { alicePassword, bearer, post, startProxy } from "../support/start-proxy.ts";
import { tempDir } from "../support/temp-dir.ts";

const year = 365 * 86_400_000;
const start = Date.UTC(2026, 10, 22);

/** A clock that can be set wrong: `wrongBy` ms ahead or, below 0, behind. */
function createWrongClock(wrongBy = 0) {
  let passed = 0;
  return {
    wrongBy,
    now() {
      return start + passed + this.wrongBy;
    },
    monotonic: () => passed,
    pass(ms: number) {
      passed += ms;
    },
  };
}

describe("D6: a clock that was wrong for a while locks nobody out", () => {
  it.each([year, -year])("of their sessions and tokens (%i ms)", async (wrongBy) => {
    const clock = createWrongClock();
    const proxy = await startProxy({ clock });
    onTestFinished(() => proxy.dispose());
    const tokens = await logIn(proxy, "alice", alicePassword);
    clock.wrongBy = wrongBy;
    if (wrongBy > 0) {
      expect(await statusOf(proxy, tokens.token)).toBe(401);
      expect(await refresh(proxy, tokens.refresh_token)).toMatchObject({ body: { error: { code: "token_expired" } } });
    }
    const meanwhile = await startProxy({ clock });
    onTestFinished(() => meanwhile.dispose());
    const early = await logIn(meanwhile, "alice", alicePassword);
    clock.wrongBy = 0;
    expect(await statusOf(proxy, tokens.token)).toBe(200);
    expect((await refresh(proxy, tokens.refresh_token)).status).toBe(200);
    // Who logged in by the wrong clock may have to do it again, and can.
    if (wrongBy > 0) expect((await refresh(meanwhile, early.refresh_token)).status).toBe(200);
    expect((await logIn(meanwhile, "alice", alicePassword, "again")).token).toBeTypeOf("string");
  });

  it("of sessions on disk that a start by the wrong clock took for over", async () => {
    const test = await useSessions(tempDir());
    const { refreshToken } = await test.sessions.open(bob, laptop);
    test.clock.advance(year);
    await test.restart();
    await expect(test.sessions.refresh(refreshToken, laptop)).rejects.toMatchObject({ code: "token_expired" });
    await test.sessions.close();
    test.clock.advance(-year);
    await test.restart();
    expect(await test.sessions.refresh(refreshToken, laptop)).toMatchObject({ account: bob });
  });

  it.each([
    ["the account was made", year, 0],
    ["the key was made", 0, -year],
  ])("of API keys where it was wrong when %s", async (_, wrongAtAccount, wrongAtKey) => {
    const clock = createWrongClock();
    const account = { ...bob, created_at: new Date(start + wrongAtAccount) };
    const common = { usersDir: tempDir(), clock, log: createCapturedLog(), newId: randomUUID };
    const keys = await openFileApiKeys({ ...common, flushMs: 3_600_000 });
    onTestFinished(() => keys.close());
    clock.wrongBy = wrongAtKey;
    const { text } = await keys.create(account, { name: "key" });
    clock.wrongBy = 0;
    const authenticate = createAuthenticate({
      users: { get: () => account },
      tokens: {
        verify: () => {
          throw new Error("no token");
        },
      },
      sessions: { isLive: () => false },
      apiKeys: keys,
      clock,
    });
    expect(await authenticate(text, "192.0.2.1")).toMatchObject({ account });
  });

  it("by waits after failed logins", () => {
    const clock = createWrongClock(year);
    const { guard, fail } = useGuard({ clock });
    fail(6, "alice", () => "192.0.2.1");
    expect(guard.check("alice", "192.0.2.1")).not.toBeNull();
    clock.wrongBy = 0;
    clock.pass(1000);
    expect(guard.check("alice", "192.0.2.1")).toBeNull();
  });

  it("of keys made by a proxy that was started ahead and set right", async () => {
    const clock = createWrongClock(year);
    const proxy = await startProxy({ clock });
    onTestFinished(() => proxy.dispose());
    const { token } = await logIn(proxy, "alice", alicePassword);
    clock.wrongBy = 0;
    const { body } = await jsonOf<{ key: string }>(post(`${proxy.url}/auth/keys`, { name: "key" }, bearer(token)));
    expect(await statusOf(proxy, body.key)).toBe(200);
  });
});

describe("D6: signed requests", () => {
  /** Signs a request of now, or of `at` s since the epoch, and says whether it is let in. */
  function useSigner(clock: Clock) {
    const check = createSignatureCheck({ nonces: createMemoryNonces(clock), clock });
    const now = (): number => Math.floor(clock.now() / 1000);
    async function send(nonce: string, at = now(), key = "key"): Promise<boolean> {
      const [method, target, timestamp] = ["GET", "/", String(at)];
      const text = [method, target, timestamp, nonce, createHash("sha256").digest("hex")].join("\n");
      const signature = createHmac("sha256", "secret").update(text).digest("hex");
      try {
        await check(key, "secret", { method, target, timestamp, nonce, signature, body: Buffer.alloc(0) });
        return true;
      } catch {
        return false;
      }
    }
    return { now, send };
  }
  const nonce = (index: number): string => `nonce-number-${String(index).padStart(6, "0")}`;

  it("are let in again at once after the clock was ahead, at the start or later", async () => {
    const clock = createWrongClock(year);
    const { send } = useSigner(clock);
    expect(await send(nonce(1))).toBe(true);
    clock.wrongBy = 0;
    expect(await send(nonce(2))).toBe(true);
    clock.pass(3_600_000);
    expect(await send(nonce(3))).toBe(true);
    clock.wrongBy = year;
    for (let index = 4; index < 10; index++) {
      clock.pass(400_000);
      expect(await send(nonce(index), undefined, `key ${index}`)).toBe(true);
    }
    clock.wrongBy = 0;
    expect(await send(nonce(10))).toBe(true);
    expect(await send(nonce(11), undefined, "key 9")).toBe(true);
  });

  it("are let in once, whatever the clock does", async () => {
    const step = fc.record({
      pass: fc.integer({ min: 0, max: 900_000 }),
      wrongBy: fc.constantFrom(0, 0, 0, 3_600_000, -700_000, year),
      key: fc.constantFrom("a", "b"),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        const clock = createWrongClock();
        const { now, send } = useSigner(clock);
        const used: { readonly nonce: string; readonly at: number; readonly key: string }[] = [];
        for (const [index, { pass, wrongBy, key }] of steps.entries()) {
          clock.pass(pass);
          clock.wrongBy = wrongBy;
          const one = { nonce: nonce(index), at: now(), key };
          if (await send(one.nonce, one.at, one.key)) used.push(one);
          for (const old of used) expect(await send(old.nonce, old.at, old.key)).toBe(false);
        }
      }),
      { numRuns: 300 },
    );
  });
});
