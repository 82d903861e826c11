import { randomUUID } from "node:crypto";
import { readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { newApiKeyText } from "../../../src/identity/keys/api-key-text.ts";
import { openFileApiKeys, type FileApiKeysOptions } from "../../../src/identity/files/file-api-keys.ts";
import { createCapturedLog } from "../../support/captured-log.ts";
import { createFaultyFiles } from "../../support/faulty-files.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { tempDir } from "../../support/temp-dir.ts";
import { bob, refusal } from "../session-support.ts";

async function useKeys(usersDir: string, options: Partial<FileApiKeysOptions> = {}) {
  const clock = createManualClock(Date.UTC(2026, 10, 22));
  const log = createCapturedLog();
  const open = () =>
    openFileApiKeys({
      usersDir,
      clock,
      log,
      newId: randomUUID,
      flushMs: 3_600_000,
      ...options,
    });
  const keys = await open();
  onTestFinished(() => keys.close());
  return { keys, clock, log, open, file: () => readFile(join(usersDir, "bob.keys.toml"), "utf8") };
}

describe("an API key", () => {
  it("is found by its text, before and after a restart, and the text is nowhere on disk", async () => {
    const { keys, open, file } = await useKeys(tempDir());
    const { text, key } = await keys.create(bob, { name: "laptop" });
    expect(keys.find(text).key).toBe(key);
    expect(key).toMatchObject({
      user: "bob",
      name: "laptop",
      models: null,
      addresses: null,
      limits: [],
      signed: false,
    });
    expect(await file()).not.toContain(text.slice(4, 12));
    const again = await open();
    expect(again.find(text).key).toMatchObject({ id: key.id, user: "bob" });
    await again.close();
  });

  it("that is unknown, mistyped or cut is refused, and a slip of the pen is called one", async () => {
    const { keys } = await useKeys(tempDir());
    const { text } = await keys.create(bob, { name: "laptop" });
    expect(() => keys.find(newApiKeyText())).toThrow(refusal("invalid_api_key"));
    const last = text.endsWith("a") ? "b" : "a";
    for (const wrong of [text.slice(0, -1) + last, text.slice(0, -1), `${text}a`, "dsp_", "dsp___proto__"]) {
      expect(() => keys.find(wrong)).toThrow(/mistyped or cut off/);
    }
  });

  it("stops when it expires", async () => {
    const { keys, clock } = await useKeys(tempDir());
    const { text } = await keys.create(bob, { name: "laptop", expiresAt: clock.now() + 1000 });
    clock.advance(999);
    keys.find(text);
    clock.advance(1);
    expect(() => keys.find(text)).toThrow(/expired/);
  });

  it("stops when it is revoked, for good, and only its owner can do that", async () => {
    const { keys, open } = await useKeys(tempDir());
    const { text, key } = await keys.create(bob, { name: "laptop" });
    keys.find(text);
    expect(await keys.revoke("eve", key.id)).toBe(false);
    expect(await keys.revoke("bob", key.id)).toBe(true);
    expect(() => keys.find(text)).toThrow(refusal("invalid_api_key"));
    expect(await keys.revoke("bob", key.id)).toBe(false);
    const again = await open();
    expect(() => again.find(text)).toThrow(refusal("invalid_api_key"));
    await again.close();
  });

  it("keeps its terms over a restart", async () => {
    const { keys, clock, open } = await useKeys(tempDir());
    const limits = [{ metric: "requests", per: "day", max: 5 } as const];
    const terms = { models: ["deepseek-*"], addresses: ["192.0.2.0/24"], limits, signed: true };
    const { text, signingSecret } = await keys.create(bob, {
      name: 'Bobs "Schlüssel" 🔑',
      expiresAt: clock.now() + 1e6,
      ...terms,
    });
    const again = await open();
    const { key, signingSecret: found } = again.find(text);
    expect(key).toMatchObject({ name: 'Bobs "Schlüssel" 🔑', expiresAt: clock.now() + 1e6, ...terms });
    expect([key.allowsModel("deepseek-flash"), key.allowsModel("glm-5"), key.allowsModel("")]).toEqual([
      true,
      false,
      false,
    ]);
    expect([key.allowsAddress("192.0.2.1"), key.allowsAddress("192.0.3.1")]).toEqual([true, false]);
    expect(found).toBe(signingSecret);
    await again.close();
  });

  it("has a signing secret only where it was made to sign, and the file holds none", async () => {
    const { keys, file } = await useKeys(tempDir());
    const plain = await keys.create(bob, { name: "plain" });
    expect(plain.signingSecret).toBeUndefined();
    expect(keys.find(plain.text).signingSecret).toBeNull();
    const { signingSecret = "" } = await keys.create(bob, { name: "signed", signed: true });
    expect(await file()).not.toContain(signingSecret.slice(4, 12));
  });
});

describe("the keys of a user", () => {
  it("are at most 50, and making room helps", async () => {
    const { keys } = await useKeys(tempDir());
    const made = await Promise.all(Array.from({ length: 50 }, () => keys.create(bob, { name: "x" })));
    await expect(keys.create(bob, { name: "x" })).rejects.toEqual(refusal("conflict"));
    await keys.create({ ...bob, username: "eve" }, { name: "x" });
    await keys.revoke("bob", made[0]?.key.id ?? "");
    await keys.create(bob, { name: "x" });
    expect(keys.list("bob")).toHaveLength(50);
  });

  it("say when they were last used, written down now and then and at the close", async () => {
    const fileOps = createFaultyFiles();
    const dir = tempDir();
    const { keys, clock, open } = await useKeys(dir, { fileOps });
    const { text } = await keys.create(bob, { name: "laptop" });
    expect(keys.list("bob")).toMatchObject([{ lastUsedAt: null }]);
    clock.advance(1000);
    const writes = fileOps.count("rename");
    for (let i = 0; i < 100; i++) keys.find(text);
    expect(keys.list("bob")).toMatchObject([{ lastUsedAt: clock.now() }]);
    expect(fileOps.count("rename")).toBe(writes);
    await keys.close();
    expect(fileOps.count("rename")).toBe(writes + 1);
    const again = await open();
    expect(again.list("bob")).toMatchObject([{ lastUsedAt: clock.now() }]);
    await again.close();
  });

  it("are written once a minute at the most while they are used", async () => {
    const fileOps = createFaultyFiles();
    const { keys } = await useKeys(tempDir(), { fileOps, flushMs: 5 });
    const { text } = await keys.create(bob, { name: "laptop" });
    const writes = fileOps.count("rename");
    keys.find(text);
    await vi.waitFor(() => {
      expect(fileOps.count("rename")).toBe(writes + 1);
    });
    await keys.close();
    expect(fileOps.count("rename")).toBe(writes + 1);
  });

  it("that can't be written are not given out; what is revoked stays revoked, and is written later", async () => {
    const fileOps = createFaultyFiles();
    const { keys, open } = await useKeys(tempDir(), { fileOps });
    const { text, key } = await keys.create(bob, { name: "laptop" });
    fileOps.fail("write", "ENOSPC");
    await expect(keys.create(bob, { name: "other" })).rejects.toEqual(refusal("storage_unavailable"));
    expect(keys.list("bob")).toHaveLength(1);
    fileOps.fail("sync", "EIO");
    await expect(keys.revoke("bob", key.id)).rejects.toEqual(refusal("storage_unavailable"));
    expect(() => keys.find(text)).toThrow(refusal("invalid_api_key"));
    await keys.close();
    const again = await open();
    expect(again.list("bob")).toEqual([]);
    await again.close();
  });

  it("in a damaged file are not in force, and the file is not overwritten", async () => {
    const dir = tempDir();
    const path = join(dir, "bob.keys.toml");
    await writeFile(path, "keys = planted-text");
    const { keys, log } = await useKeys(dir);
    await expect(keys.create(bob, { name: "laptop" })).rejects.toEqual(refusal("conflict"));
    expect(await readFile(path, "utf8")).toBe("keys = planted-text");
    expect(log.lines).toMatchObject([{ level: "error", facts: { file: "bob.keys.toml" } }]);
    expect(JSON.stringify(log.lines)).not.toContain("planted");
  });

  it("are in a file for its owner alone", async () => {
    const dir = tempDir();
    const { keys } = await useKeys(dir);
    await keys.create(bob, { name: "laptop" });
    expect((await stat(join(dir, "bob.keys.toml"))).mode & 0o777).toBe(0o600);
  });
});
