import { join } from "node:path";
import { systemClock } from "../lib/clock.ts";
import { acquireLock, type Lock } from "../lib/files/lock-file.ts";
import type { CommandIo } from "./this-process.ts";

/**
 * Takes the users folder for a command that one process alone may run. Rejects with LockedError beside a server; where
 * that would run on another machine, after some seconds in which it shows that it lives.
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
