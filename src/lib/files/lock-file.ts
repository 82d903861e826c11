import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, open, rename, stat, unlink } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as sleepOf } from "node:timers/promises";
import type { Clock } from "../clock.ts";
import { fileErrorCode } from "./file-ops.ts";
import { parseOwner, type LockOwner, type ProcessTable } from "./lock-owner.ts";

const heartbeatMs = 5_000;
/** A lock that has not changed for so long of our own time is abandoned: three heartbeats. */
const staleMs = 15_000;
const pollEveryMs = 500;
/** Other processes that are taking the same lock finish quickly. */
const retryMs = 10;
/** No lock is longer, in bytes. */
const maxBytes = 4096;

/** Another instance holds the lock. */
export class LockedError extends Error {
  override readonly name = "LockedError";
  readonly path: string;
  /** Which process holds it. */
  readonly holder: string;

  constructor(path: string, owner: LockOwner | undefined) {
    const holder = `${path} is held by ${nameOf(owner)}`;
    super(`${holder}: only one instance may use this folder. Stop it first.`);
    this.path = path;
    this.holder = holder;
  }
}

/** Why a lock was lost. */
export type LockLoss =
  /** Another instance has it. */
  | "taken"
  /** The file was removed; another instance may have come and gone meanwhile. */
  | "removed"
  /** The folder is no longer at its path. */
  | "moved";

/** A lock held by this process. */
export interface Lock {
  /** Stops the heartbeat and removes the lock file if it is still ours. */
  release(): Promise<void>;
}

export interface LockOptions {
  readonly path: string;
  readonly processes: ProcessTable;
  readonly clock: Clock;
  /** Called once if the lock is no longer ours: this process must stop writing. */
  readonly onLost: (loss: LockLoss) => void;
  /** Called once if the owner can't be seen from here and we have to wait for signs of life, at most `ms`. */
  readonly onWait?: (owner: string, ms: number) => void;
  /** Aborts the wait: the promise rejects with its reason. */
  readonly signal?: AbortSignal;
  /** For tests of the wait. */
  readonly sleep?: (ms: number) => Promise<unknown>;
}

/**
 * Acquires a lock file, or rejects with LockedError. If the owner's process can be seen from here, it decides, so that
 * a restart after a crash need not wait. Otherwise (another container or machine) the file is watched: a live owner
 * changes it with every heartbeat, and a lock that has not changed for 15 s of our own monotonic time is taken over.
 * Clocks are never compared, since those of two machines need not agree.
 */
export async function acquireLock(options: LockOptions): Promise<Lock> {
  const { path, processes, clock, onWait, signal } = options;
  const sleep = options.sleep ?? ((ms: number) => sleepOf(ms, undefined, signal === undefined ? {} : { signal }));
  const mine = JSON.stringify({ ...processes.self, token: randomBytes(8).toString("hex") } satisfies LockOwner) + "\n";
  const [watched, watchedGuard] = [createWatch(clock), createWatch(clock)];
  let watchedLock: FileState | undefined;
  for (;;) {
    signal?.throwIfAborted();
    if (await create(path, mine)) break;
    const lock = await look(path);
    let pauseMs = retryMs;
    if (lock !== undefined) {
      const owner = parseOwner(lock.text);
      const fate = owner === undefined ? "unknown" : processes.fate(owner);
      const isRenewed = watchedLock !== undefined && !isSame(watchedLock, lock);
      if (fate === "alive" || (fate === "unknown" && isRenewed)) throw new LockedError(path, owner);
      const guard = await look(guardOf(path));
      const isFree = fate === "dead" || watched.unchangedMs(lock) >= staleMs;
      const isGuardStale = watchedGuard.unchangedMs(guard) >= staleMs;
      if (isFree && (await takeOver(path, { lock, guard, isGuardStale }, mine, processes))) break;
      if (fate === "unknown" && watchedLock === undefined) {
        watchedLock = lock;
        onWait?.(nameOf(owner), staleMs);
      }
      if (fate === "unknown") pauseMs = pollEveryMs;
    }
    await sleep(pauseMs).catch(() => undefined);
  }
  return hold(options, mine);
}

interface FileState {
  readonly text: string;
  readonly mtimeMs: number;
}

/** What prevents a process from getting the lock. */
interface Obstacle {
  readonly lock: FileState;
  /** Another process's guard, see takeOver. */
  readonly guard: FileState | undefined;
  /** Whether the guard has not changed for so long that it must be abandoned. */
  readonly isGuardStale: boolean;
}

function isSame(a: FileState | undefined, b: FileState | undefined): boolean {
  return a?.text === b?.text && a?.mtimeMs === b?.mtimeMs;
}

/** Measures how long a value has been the same, in ms of our own monotonic time. */
function createWatch(clock: Clock) {
  let seen: FileState | undefined;
  let since = clock.monotonic();
  return {
    unchangedMs(state: FileState | undefined): number {
      const now = clock.monotonic();
      if (!isSame(state, seen)) since = now;
      seen = state;
      return now - since;
    },
  };
}

function guardOf(path: string): string {
  return `${path}.takeover`;
}

/** O_EXCL: of any number of processes only one creates the file. If it can't be written, it is removed. */
async function create(path: string, text: string): Promise<boolean> {
  const { O_WRONLY, O_CREAT, O_EXCL } = constants;
  let isMade = false;
  try {
    const file = await open(path, O_WRONLY | O_CREAT | O_EXCL, 0o600);
    isMade = true;
    try {
      await file.writeFile(text);
    } finally {
      await file.close();
    }
    return true;
  } catch (error) {
    if (fileErrorCode(error) === "EEXIST") return false;
    if (isMade) await unlink(path).catch(() => undefined);
    throw named(path, "cannot be made", error);
  }
}

/**
 * Replaces a stale lock with ours. Removing the old one first would allow a slower process to remove its successor: so
 * there is a second file, the guard, which only one process can create, and which becomes the lock by a rename. While
 * it exists nobody else touches a stale lock, so the check right before the rename decides.
 *
 * @returns whether the lock is ours now
 */
async function takeOver(path: string, obstacle: Obstacle, mine: string, processes: ProcessTable): Promise<boolean> {
  const guard = guardOf(path);
  if (obstacle.guard !== undefined) {
    const owner = parseOwner(obstacle.guard.text);
    const isDead = owner !== undefined && processes.fate(owner) === "dead";
    // Its creator died between two system calls; otherwise another process is taking the lock.
    if ((isDead || obstacle.isGuardStale) && isSame(await look(guard), obstacle.guard)) await removeIfThere(guard);
    return false;
  }
  if (!(await create(guard, mine))) return false;
  if (!isSame(await look(path), obstacle.lock)) {
    await removeIfThere(guard);
    return false;
  }
  try {
    await rename(guard, path);
  } catch (error) {
    if (fileErrorCode(error) !== "ENOENT") throw named(path, "cannot be taken over", error);
  }
  // A process that considered our guard stale may have put its own there.
  return (await look(path))?.text === mine;
}

async function hold({ path, clock, onLost }: LockOptions, mine: string): Promise<Lock> {
  const folder = await inodeOf(dirname(path));
  let isReleased = false;
  let writtenMs = 0;
  const timer = setInterval(() => void beat(), heartbeatMs);
  timer.unref();

  async function beat(): Promise<void> {
    // The time itself means nothing to others, but it must change, even while the clock stands still.
    writtenMs = clock.now() === writtenMs ? writtenMs + 1 : clock.now();
    const fate = await renew(path, mine, writtenMs);
    if (fate === "mine" || isReleased) return;
    isReleased = true;
    clearInterval(timer);
    if (fate === "taken") onLost("taken");
    else onLost((await inodeOf(dirname(path))) === folder ? "removed" : "moved");
  }

  return {
    async release() {
      isReleased = true;
      clearInterval(timer);
      if ((await renew(path, mine, null)) === "mine") await removeIfThere(path);
    },
  };
}

/** Checks whether a lock is still ours, and updates its mtime. A temporarily unreadable lock is not lost. */
async function renew(path: string, mine: string, mtimeMs: number | null): Promise<"mine" | "taken" | "gone"> {
  try {
    const text = await withFile(path, async (file) => {
      const found = await textOf(file);
      if (found === mine && mtimeMs !== null) await file.utimes(mtimeMs / 1000, mtimeMs / 1000);
      return found;
    });
    return text === undefined ? "gone" : text === mine ? "mine" : "taken";
  } catch {
    return "mine";
  }
}

/** undefined if the file doesn't exist. */
async function look(path: string): Promise<FileState | undefined> {
  try {
    return await withFile(path, async (file) => {
      const stats = await file.stat();
      if (!stats.isFile()) throw new Error("it is not a plain file");
      return { text: await textOf(file), mtimeMs: stats.mtimeMs };
    });
  } catch (error) {
    throw named(path, "cannot be read", error);
  }
}

/** Opens a file that is not a symlink, without waiting for the writer of a pipe. */
async function withFile<T>(path: string, work: (file: FileHandle) => Promise<T>): Promise<T | undefined> {
  let file: FileHandle;
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (fileErrorCode(error) === "ENOENT") return undefined;
    throw error;
  }
  try {
    return await work(file);
  } finally {
    await file.close();
  }
}

/** A torn lock is still some text; parseOwner decides whose it is. */
async function textOf(file: FileHandle): Promise<string> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(maxBytes), 0, maxBytes, 0);
  return buffer.toString("utf8", 0, bytesRead);
}

/** null if the folder is gone. */
async function inodeOf(folder: string): Promise<number | null> {
  return stat(folder).then(
    ({ ino }) => ino,
    () => null,
  );
}

async function removeIfThere(path: string): Promise<void> {
  await unlink(path).catch((error: unknown) => {
    if (fileErrorCode(error) !== "ENOENT") throw named(path, "cannot be removed", error);
  });
}

/** Not all of Node's errors name the file. */
function named(path: string, what: string, cause: unknown): Error {
  return new Error(`the lock ${path} ${what}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
}

function nameOf(owner: LockOwner | undefined): string {
  return owner === undefined ? "an unknown process" : `process ${owner.pid} on ${owner.host}`;
}
