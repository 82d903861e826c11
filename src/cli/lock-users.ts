import { join } from "node:path";
import { systemClock } from "../lib/clock.ts";
import { acquireLock, type Lock } from "../lib/files/lock-file.ts";
import type { CommandIo } from "./this-process.ts";

/**
 * Locks the users folder for a command that must run alone. Rejects with LockedError beside a server; if that may run
 * on another machine, only after some seconds in which it shows that it is alive.
 */
export function lockUsers(usersDir: string, io: CommandIo): Promise<Lock> {
  return acquireLock({
    path: join(usersDir, ".lock"),
    processes: io.processes,
    clock: systemClock,
    onWait: (owner, ms) => {
      io.err(`${usersDir} is locked by ${owner}, elsewhere: waiting ${ms / 1000} s at the most for a sign of life`);
    },
    onLost: () => {
      io.err(
        `warning: ${join(usersDir, ".lock")} is no longer this command's: another instance may have taken the folder`,
      );
    },
  });
}
