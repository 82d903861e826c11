import { chmod, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { loadTokenKeys, parseTokenKeys } from "../../src/identity/sessions/token-keys.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { useUsersDir } from "./support.ts";

const newSecret = () => randomBytes(32).toString("base64");

describe("parseTokenKeys", () => {
  it("signs with the first and verifies with all", () => {
    const [one, two, three] = [newSecret(), newSecret(), `${newSecret()}:with:colons`];
    const keys = parseTokenKeys(`2026-11:${one}, 2026-10:${two}\n\r\nold:${three}\n`, "JWT_SECRETS");
    expect(keys.signing).toEqual({ kid: "2026-11", secret: one });
    expect([...keys.byKid]).toEqual([
      ["2026-11", one],
      ["2026-10", two],
      ["old", three],
    ]);
    expect(keys.byKid.get("__proto__")).toBeUndefined();
  });

  it("accepts random secrets in hex, base64 and letters", () => {
    for (let round = 0; round < 200; round++) {
      const bytes = randomBytes(32);
      for (const secret of [bytes.toString("hex"), bytes.toString("base64"), bytes.toString("base64url")]) {
        expect(parseTokenKeys(`k:${secret}`, "JWT_SECRETS").signing.secret).toBe(secret);
      }
    }
  });

  it.each([
    ["short", "x7Kq9fLm2pRt5vWz8yBc4dEg6hJ", /27 bytes and needs at least 32/],
    ["one character", "a".repeat(40), /fewer than 8/],
    ["few characters", "ab".repeat(20), /fewer than 8/],
    ["repeated", "x7Kq9fLm2pRt".repeat(3), /repeats itself/],
    ["repeated and cut", "x7Kq9fLm2pRt5vWzx7Kq9fLm2pRt5vWzx7K", /repeats itself/],
    ["a tutorial's", "your-jwt-secret-goes-here-0123-abcd", /well-known/],
    ["a placeholder", "Change_Me_Please!Change_It_Now!!x9", /well-known/],
    ["a sequence", "abcdefghijklmnopqrstuvwxyz0123456789", /well-known/],
    ["secret again", "supersecretsupersecretsupersecret!", /well-known/],
  ])("refuses a secret that is %s, naming the kid and not the secret", (_what, secret, reason) => {
    const attempt = () => parseTokenKeys(`good:${newSecret()},bad-one:${secret}`, "JWT_SECRETS");
    expect(attempt).toThrow(reason);
    expect(attempt).toThrow(/kid "bad-one"/);
    expect(attempt).not.toThrow(secret);
  });

  it("refuses an entry without a kid without showing it", () => {
    const secret = newSecret();
    for (const text of [secret, `:${secret}`, `a b:${secret}`, `k:${newSecret()},${secret}`]) {
      expect(() => parseTokenKeys(text, "JWT_SECRETS")).toThrow(/JWT_SECRETS: entry [12] is not kid:secret/);
      expect(() => parseTokenKeys(text, "JWT_SECRETS")).not.toThrow(secret);
    }
  });

  it("refuses a kid that is there twice, and an empty list", () => {
    expect(() => parseTokenKeys(`a:${newSecret()},a:${newSecret()}`, "JWT_SECRETS")).toThrow(/"a" is there twice/);
    expect(() => parseTokenKeys(" ,\n", "JWT_SECRETS")).toThrow(/no kid:secret/);
  });
});

describe("loadTokenKeys", () => {
  it("makes a secret once, readable by the owner alone, and says so", async () => {
    const usersDir = await useUsersDir();
    const log = createCapturedLog();
    const first = await loadTokenKeys({ env: { JWT_SECRETS: "" }, usersDir, log });
    expect((await stat(join(usersDir, ".keys", "jwt"))).mode & 0o777).toBe(0o600);
    expect((await stat(join(usersDir, ".keys"))).mode & 0o777).toBe(0o700);
    expect(log.lines).toHaveLength(1);
    expect(JSON.stringify(log.lines)).not.toContain(first.signing.secret);

    const second = await loadTokenKeys({ env: {}, usersDir, log });
    expect(second.signing).toEqual(first.signing);
    expect(log.lines).toHaveLength(1);
  });

  it("warns when others may read its own secret", async () => {
    const usersDir = await useUsersDir();
    const log = createCapturedLog();
    await loadTokenKeys({ env: {}, usersDir, log });
    await chmod(join(usersDir, ".keys", "jwt"), 0o644);
    await loadTokenKeys({ env: {}, usersDir, log });
    expect(log.lines.at(-1)?.message).toContain("others may read the token secret");
  });

  it("reads JWT_SECRETS_FILE, a link too, as secret mounts are", async () => {
    const usersDir = await useUsersDir();
    const secret = newSecret();
    await writeFile(join(usersDir, "mounted"), `k1:${secret}\n`);
    await symlink(join(usersDir, "mounted"), join(usersDir, "link"));
    const env = { JWT_SECRETS_FILE: join(usersDir, "link") };
    const keys = await loadTokenKeys({ env, usersDir, log: createCapturedLog() });
    expect(keys.signing).toEqual({ kid: "k1", secret });
  });

  it("refuses a file that is not there, and both variables at once", async () => {
    const usersDir = await useUsersDir();
    const load = (env: Record<string, string>) => loadTokenKeys({ env, usersDir, log: createCapturedLog() });
    await expect(load({ JWT_SECRETS_FILE: join(usersDir, "none") })).rejects.toThrow(/cannot be read/);
    await expect(load({ JWT_SECRETS_FILE: "x", JWT_SECRETS: "y" })).rejects.toThrow(/both set/);
  });

  it("refuses a damaged file of its own instead of replacing it", async () => {
    const usersDir = await useUsersDir();
    const log = createCapturedLog();
    await loadTokenKeys({ env: {}, usersDir, log });
    await writeFile(join(usersDir, ".keys", "jwt"), "");
    await expect(loadTokenKeys({ env: {}, usersDir, log })).rejects.toThrow(/no kid:secret/);
  });
});
