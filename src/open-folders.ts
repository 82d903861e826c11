import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "./lib/clock.ts";
import { acquireLock, type LockLoss } from "./lib/files/lock-file.ts";
import type { ProcessTable } from "./lib/files/lock-owner.ts";
import type { Log } from "./lib/log.ts";

/**
 * Makes the users and the logs folder if they are missing, and takes the lock of the former.
 *
 * @returns gives the lock back
 * @throws LockedError if another process has it; the signal's reason if that aborts while it waits for the lock
 */
export async function openFolders(options: {
  readonly usersDir: string;
  readonly logsDir: string;
  readonly processes: ProcessTable;
  readonly onLost: (loss: LockLoss) => void;
  readonly signal?: AbortSignal | undefined;
  readonly clock: Clock;
  readonly log: Log;
}): Promise<() => Promise<void>> {
  const { usersDir, logsDir, processes, onLost, signal, clock, log } = options;
  await mkdir(usersDir, { recursive: true, mode: 0o700 });
  await mkdir(logsDir, { recursive: true, mode: 0o700 });
  const lock = await acquireLock({
    path: join(usersDir, ".lock"),
    processes,
    clock,
    onLost,
    ...(signal === undefined ? {} : { signal }),
    onWait: (owner, ms) => {
      log.warn(
        { event: "locked", folder: usersDir, owner, wait_ms: ms },
        "the users folder is locked elsewhere: waiting for a sign of life",
      );
    },
  });
  return () => lock.release();
}
