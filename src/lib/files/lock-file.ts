import { randomBytes } from "node:crypto";
import { open, readFile, rename, stat, unlink, utimes } from "node:fs/promises";
import { constants } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { Clock } from "../clock.ts";
import { fileErrorCode } from "./file-ops.ts";
import type { Log } from "../log.ts";
import { parseOwner, type LockOwner, type ProcessTable } from "./lock-owner.ts";

const heartbeatMs = 5_000;
const staleMs = 15_000;
/** Rounds of taking over a stale lock; each is lost only to another starter. */
const attempts = 5;

/** Another instance holds the lock. */
export class LockedError extends Error {
  override readonly name = "LockedError";
  readonly path: string;
  /** After how many ms it can be taken if its owner is dead; undefined where the owner is known to run. */
  readonly staleInMs: number | undefined;

  constructor(path: string, owner: LockOwner | undefined, staleInMs: number | undefined) {
    const who = owner === undefined ? "an unknown process" : `process ${owner.pid} on ${owner.host}`;
    super(
      `${path} is held by ${who}: only one instance may use this folder. ` +
        (staleInMs === undefined
          ? "Stop it first."
          : `If it no longer runs, the lock can be taken in ${Math.ceil(staleInMs / 1000)} s.`),
    );
    this.path = path;
    this.staleInMs = staleInMs;
  }
}

/** A lock that is held. */
export interface Lock {
  /** Stops the heartbeat and removes the lock file if it is still ours. */
  release(): Promise<void>;
}

/** How a lock is taken. */
export interface LockOptions {
  readonly path: string;
  readonly processes: ProcessTable;
  readonly clock: Clock;
  /** Told once if the lock turns out to be another's: this process was asleep for too long and must stop writing. */
  readonly onLost: () => void;
}

/**
 * Takes a lock file, or rejects with LockedError. The owner is judged by its process where that can be seen from here,
 * so that a restart after a crash need not wait; elsewhere (another container or machine) by the heartbeat, which
 * keeps the file's mtime fresh.
 */
export async function acquireLock({ path, processes, clock, onLost }: LockOptions): Promise<Lock> {
  const mine = JSON.stringify({ ...processes.self, token: randomBytes(8).toString("hex") } satisfies LockOwner) + "\n";
  for (let attempt = 0; attempt < attempts; attempt++) {
    if (await create(path, mine)) return hold(path, mine, clock, onLost);
    const judged = await readLock(path);
    if (judged === undefined) continue;
    refuseIfHeld(path, judged, processes, clock);
    if (await takeOver(path, judged, mine, clock)) return hold(path, mine, clock, onLost);
  }
  throw new LockedError(path, undefined, 0);
}

/**
 * Where the owner can't be seen from here (another container) and shows no sign of life, waits once until the lock may
 * be taken. A live owner renews it in that time, and then this rejects with LockedError.
 */
export async function acquireLockPatiently(options: LockOptions, log: Log): Promise<Lock> {
  try {
    return await acquireLock(options);
  } catch (error) {
    if (!(error instanceof LockedError) || error.staleInMs === undefined) throw error;
    log.warn(
      { path: error.path, wait_ms: error.staleInMs },
      "locked from elsewhere: waiting until the lock may be taken",
    );
    await sleep(error.staleInMs + 100);
    return acquireLock(options);
  }
}

interface LockState {
  readonly text: string;
  readonly mtimeMs: number;
}

/** O_EXCL: of any number of starters one makes the file. */
async function create(path: string, text: string): Promise<boolean> {
  const { O_WRONLY, O_CREAT, O_EXCL } = constants;
  try {
    const file = await open(path, O_WRONLY | O_CREAT | O_EXCL, 0o600);
    try {
      await file.writeFile(text);
    } finally {
      await file.close();
    }
    return true;
  } catch (error) {
    if (fileErrorCode(error) === "EEXIST") return false;
    throw error;
  }
}

/** Rejects with LockedError where the owner may be alive. */
function refuseIfHeld(path: string, { text, mtimeMs }: LockState, processes: ProcessTable, clock: Clock): void {
  const owner = parseOwner(text);
  const staleInMs = mtimeMs + staleMs - clock.now();
  const fate = owner === undefined ? "unknown" : processes.fate(owner);
  if (fate === "alive") throw new LockedError(path, owner, undefined);
  if (fate === "unknown" && staleInMs > 0) throw new LockedError(path, owner, staleInMs);
}

/**
 * Puts our lock in the place of a stale one. To remove the old one first would let a slower starter remove the next:
 * so there is a second file, which only one starter can make, and which becomes the lock by a rename. While it is
 * there nobody else touches a stale lock, so that the look at it right before the rename decides.
 */
async function takeOver(path: string, judged: LockState, mine: string, clock: Clock): Promise<boolean> {
  const guard = `${path}.takeover`;
  if (!(await create(guard, mine))) {
    const other = await readLock(guard);
    const staleInMs = (other?.mtimeMs ?? 0) + staleMs - clock.now();
    if (other !== undefined && staleInMs > 0) throw new LockedError(path, parseOwner(other.text), staleInMs);
    // Its maker died between two system calls.
    await unlink(guard).catch(() => undefined);
    return false;
  }
  const current = await readLock(path);
  if (current?.text === judged.text && current.mtimeMs === judged.mtimeMs) {
    await rename(guard, path);
    return true;
  }
  await unlink(guard);
  return false;
}

function hold(path: string, mine: string, clock: Clock, onLost: () => void): Lock {
  const timer = setInterval(() => void beat(), heartbeatMs);
  timer.unref();

  async function beat(): Promise<void> {
    if (await isMine(path, mine)) {
      const nowSeconds = clock.now() / 1000;
      await utimes(path, nowSeconds, nowSeconds).catch(() => undefined);
    } else {
      clearInterval(timer);
      onLost();
    }
  }

  return {
    async release() {
      clearInterval(timer);
      if (await isMine(path, mine)) await unlink(path);
    },
  };
}

/** A lock that cannot be read now is not lost: only one that is gone or another's. */
async function isMine(path: string, mine: string): Promise<boolean> {
  try {
    return (await readLock(path))?.text === mine;
  } catch {
    return true;
  }
}

async function readLock(path: string): Promise<LockState | undefined> {
  try {
    const [text, { mtimeMs }] = await Promise.all([readFile(path, "utf8"), stat(path)]);
    return { text, mtimeMs };
  } catch (error) {
    if (fileErrorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}
