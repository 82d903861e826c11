import { describe, expect, it } from "vitest";
import { createPasswords } from "../../src/identity/passwords/password.ts";
import { createFakeHasher, fakeHash, until } from "./support.ts";

function useFake(maxHashes = 2, maxWaiting = 3) {
  const fake = createFakeHasher();
  const passwords = createPasswords({ maxHashes, maxWaiting, hasher: fake.hasher });
  return { ...fake, passwords };
}

describe("argon2id", () => {
  it("makes hashes with m=19456, t=2, p=1 that prove only their own password", async () => {
    const passwords = createPasswords({ maxHashes: 2, maxWaiting: 10 });
    const hash = await passwords.hash("correct horse");
    expect(hash).toMatch(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$/);
    expect(await passwords.matches(hash, "correct horse")).toBe(true);
    expect(await passwords.matches(hash, "correct hors")).toBe(false);
    expect(await passwords.matches(undefined, "correct horse")).toBe(false);
  });

  it("has a hash of as much work for unknown users, in the format that it makes itself", async () => {
    const real = await createPasswords({ maxHashes: 1, maxWaiting: 1 }).hash("correct horse");
    const verified: string[] = [];
    const hasher = {
      hash: () => Promise.resolve(""),
      verify: (hash: string) => Promise.resolve(verified.push(hash) > 0),
    };
    expect(await createPasswords({ maxHashes: 1, maxWaiting: 1, hasher }).matches(undefined, "x")).toBe(false);
    const shape = (hash = "") => hash.split("$").map((part, index) => (index < 4 ? part : part.length));
    expect(shape(verified[0])).toEqual(shape(real));
  });
});

describe("createPasswords", () => {
  it("does the same work for an unknown user as for a wrong password", async () => {
    const { passwords, calls } = useFake();
    await passwords.matches(undefined, "correct horse");
    expect(calls.verify).toBe(1);
    await passwords.matches(fakeHash("other"), "correct horse");
    expect(calls.verify).toBe(2);
  });

  it("never runs more than the allowed number at once", async () => {
    const { passwords, calls, hold } = useFake(2, 50);
    const release = hold();
    const all = Array.from({ length: 30 }, () => passwords.matches(fakeHash("a"), "a"));
    await until(() => {
      expect(calls.running).toBe(2);
    });
    expect(passwords.waiting()).toBe(28);
    release();
    expect(await Promise.all(all)).toEqual(Array.from({ length: 30 }, () => true));
    expect(calls.mostRunning).toBe(2);
    expect(passwords.waiting()).toBe(0);
  });

  it("refuses with login_busy what would wait past the bound, and goes on afterwards", async () => {
    const { passwords, hold } = useFake(2, 3);
    const release = hold();
    const accepted = Array.from({ length: 5 }, () => passwords.matches(fakeHash("a"), "a"));
    await expect(passwords.matches(fakeHash("a"), "a")).rejects.toMatchObject({
      code: "login_busy",
      status: 429,
      extras: { retryAfterSeconds: 1 },
    });
    release();
    await Promise.all(accepted);
    expect(await passwords.matches(fakeHash("a"), "a")).toBe(true);
  });

  it("gives its place back after a failed run", async () => {
    const passwords = createPasswords({
      maxHashes: 1,
      maxWaiting: 1,
      hasher: { hash: () => Promise.resolve(""), verify: () => Promise.reject(new Error("no memory")) },
    });
    for (let attempt = 0; attempt < 3; attempt++) {
      await expect(passwords.matches("x", "y")).rejects.toThrow("no memory");
    }
  });

  it("takes new passwords of 8 to 1024 bytes, counted in UTF-8", async () => {
    const { passwords } = useFake();
    for (const password of ["", "1234567", "x".repeat(1025), "é".repeat(513)]) {
      await expect(passwords.hash(password)).rejects.toMatchObject({
        code: "invalid_request",
        extras: { param: "password" },
      });
    }
    for (const password of ["12345678", "密码密", "é".repeat(512)]) {
      await expect(passwords.hash(password)).resolves.toBeTypeOf("string");
    }
  });

  it("refuses an overlong password without hashing it", async () => {
    const { passwords, calls } = useFake();
    expect(await passwords.matches(fakeHash("x"), "x".repeat(1025))).toBe(false);
    expect(calls.verify).toBe(0);
  });

  it("asks for a new hash only where the old one took less work", () => {
    const { passwords } = useFake();
    expect(passwords.needsRehash(fakeHash("x", "m=4096,t=3,p=1"))).toBe(true);
    expect(passwords.needsRehash(fakeHash("x"))).toBe(false);
    expect(passwords.needsRehash(fakeHash("x", "m=65536,t=3,p=4"))).toBe(false);
  });
});
