import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished, vi } from "vitest";
import { openFileUsers, type FileUsers, type FileUsersOptions } from "../../src/identity/files/file-users.ts";
import type { Hasher } from "../../src/identity/passwords/password.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { createManualClock } from "../support/manual-clock.ts";

/** A folder of its own for this test. */
export async function useUsersDir(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "accounts-"));
  onTestFinished(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

/** What a fake hash of this password looks like. Weak parameters make it one that asks for a rehash. */
export function fakeHash(password: string, parameters = "m=19456,t=2,p=1"): string {
  const digest = createHash("sha256").update(password).digest("base64").replace(/=+$/, "");
  return `$argon2id$v=19$${parameters}$c29tZXNhbHRzb21lc2FsdA$${digest}`;
}

/** A hasher without argon2's cost, which counts and can be held up. */
export function createFakeHasher() {
  const calls = { hash: 0, verify: 0, running: 0, mostRunning: 0 };
  let gate: Promise<void> = Promise.resolve();
  const run = async <T>(work: () => T): Promise<T> => {
    calls.running += 1;
    calls.mostRunning = Math.max(calls.mostRunning, calls.running);
    await gate;
    calls.running -= 1;
    return work();
  };
  const hasher: Hasher = {
    hash: (password) => {
      calls.hash += 1;
      return run(() => fakeHash(password));
    },
    verify: (hash, password) => {
      calls.verify += 1;
      return run(() => hash.split("$").at(-1) === fakeHash(password).split("$").at(-1));
    },
  };
  return {
    hasher,
    calls,
    /** Holds every run from now on; returns what lets them go. */
    hold: () => {
      let open: () => void = () => undefined;
      gate = new Promise((resolve) => {
        open = resolve;
      });
      return open;
    },
  };
}

/** A store over the folder with a fake hasher; closed after the test. */
export async function useStore(usersDir: string, options: Partial<FileUsersOptions> = {}) {
  const log = createCapturedLog();
  const store = await openFileUsers({
    usersDir,
    clock: createManualClock(Date.UTC(2026, 10, 22)),
    log,
    tierNames: () => ["basic", "premium"],
    hashPassword: (password) => Promise.resolve(fakeHash(password)),
    debounceMs: 5,
    rescanMs: 3_600_000,
    watch: false,
    ...options,
  });
  onTestFinished(() => store.close());
  return { store, log };
}

/** Writes users/NAME.toml as an operator would. */
export async function putUser(usersDir: string, name: string, lines = ""): Promise<void> {
  const text = `username = "${name}"\npassword_hash = "${fakeHash("correct horse")}"\nquota_tier = "basic"\n${lines}`;
  await writeFile(join(usersDir, `${name}.toml`), text);
}

/** The text of users/NAME.toml. */
export function userText(usersDir: string, name: string): Promise<string> {
  return readFile(join(usersDir, `${name}.toml`), "utf8");
}

/** Waits until the check passes. */
export function until(check: () => void | Promise<void>): Promise<void> {
  return vi.waitFor(check, { timeout: 15_000, interval: 5 });
}

/** An account of the store that must be there. */
export function accountOf(store: Pick<FileUsers, "get">, name: string) {
  const account = store.get(name);
  if (account === undefined) throw new Error(`no account ${name}`);
  return account;
}
