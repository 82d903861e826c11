import { randomUUID } from "node:crypto";
import type { Account } from "../../src/identity/account-schema.ts";
import { createCheckGuarded, createLogin } from "../../src/identity/login/login.ts";
import { createPasswords } from "../../src/identity/passwords/password.ts";
import type { ProxyEvent } from "../../src/events/catalogue.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { createFakeHasher, fakeHash } from "./support.ts";

export const password = "correct horse";
export const bob: Account = {
  username: "bob",
  password_hash: fakeHash(password),
  quota_tier: "basic",
  roles: ["user"],
  is_active: true,
  token_version: 1,
  metadata: {},
};

/** A login over one account, bob, with everything that it touches in reach. */
export function useLogin({ reuseSeconds = 10, maxWaiting = 50, lifeSeconds = 900, rehash = true, opens = true } = {}) {
  const accounts = new Map([["bob", bob]]);
  const clock = createManualClock(Date.UTC(2026, 10, 22));
  const log = createCapturedLog();
  const fake = createFakeHasher();
  const events: ProxyEvent[] = [];
  /** Ids of sessions that are over or whose first refresh token has been used. */
  const touched = new Set<string>();
  const passwords = createPasswords({ maxHashes: 2, maxWaiting, hasher: fake.hasher });
  const ignore = () => undefined;
  const open = {
    check: ignore,
    start: () => ({ isKnown: false, failed: ignore, succeeded: ignore, dropped: ignore }),
  };
  const { login, loginWithCookie } = createLogin({
    loginGuard: open,
    users: {
      get: (name) => accounts.get(name),
      rehash: (name, _old, password_hash) => {
        if (!rehash) return Promise.reject(new Error("read-only"));
        accounts.set(name, { ...bob, password_hash });
        return Promise.resolve();
      },
    },
    passwords,
    guarded: createCheckGuarded(open, passwords),
    clock,
    log,
    sessions: {
      isUntouched: (id) => !touched.has(id),
      openCookie: (account) => ({ account, sessionId: randomUUID(), cookie: randomUUID() }),
    },
    pairs: {
      open: (account) => {
        const expiresAt = clock.now() + lifeSeconds * 1000;
        const tokens = { token: randomUUID(), expiresAt, refreshToken: randomUUID(), refreshExpiresAt: Infinity };
        return opens
          ? Promise.resolve({ account, sessionId: randomUUID(), ...tokens })
          : Promise.reject(new Error("planted"));
      },
    },
    passwordLogin: () => "all",
    secondFactors: { use: () => Promise.resolve() },
    reuseSeconds: () => reuseSeconds,
    emit: (event) => events.push(event),
  });
  const attempt = (username: string, given: string, { ip = "10.0.0.1", client = "curl" } = {}) =>
    login({ username, password: given, origin: { ip, client, traceId: "t" } });
  const attemptWithCookie = (given: string) =>
    loginWithCookie({ username: "bob", password: given, origin: { ip: "10.0.0.1", client: "curl", traceId: "t" } });
  return { accounts, clock, log, ...fake, events, attempt, attemptWithCookie, touched };
}
