import { hostname } from "node:os";
import { text } from "node:stream/consumers";
import { createProcessTable, type ProcessTable } from "../lib/lock-owner.ts";

/** The process as a command sees it. */
export interface CommandIo {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  /** By which the owner of a lock is judged. */
  readonly processes: ProcessTable;
  /** Everything on standard input. */
  readStdin(): Promise<string>;
  /** One line of standard output. */
  out(line: string): void;
  /** One line of standard error. */
  err(line: string): void;
}

/** This process. One whose output nobody reads any more (`| head`) ends quietly. */
export function thisProcess(): CommandIo {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit();
    throw error;
  });
  return {
    env: process.env,
    cwd: process.cwd(),
    processes: createProcessTable({ pid: process.pid, host: hostname(), exists: processExists }),
    readStdin: () => text(process.stdin),
    out: (line) => {
      process.stdout.write(`${line}\n`);
    },
    err: (line) => {
      process.stderr.write(`${line}\n`);
    },
  };
}

/** Whether a process has this pid; one that we may not signal (EPERM) exists too. */
function processExists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}
