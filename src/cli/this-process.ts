import { once } from "node:events";
import { hostname, userInfo } from "node:os";
import { text } from "node:stream/consumers";
import { createProcessTable, type ProcessTable } from "../lib/files/lock-owner.ts";
import type { Log } from "../lib/log.ts";

/** The process as a command sees it. */
export interface CommandIo {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  /** The system user who runs the command; recorded in the audit log. */
  readonly user: string;
  /** Used to check the owner of a lock. */
  readonly processes: ProcessTable;
  /** Everything on standard input. */
  readStdin(): Promise<string>;
  /** Writes one line to standard output. */
  out(line: string): void;
  /** Writes any amount of text to standard output, as fast as it is read. */
  outPieces(pieces: AsyncIterable<string>): Promise<void>;
  /** Writes one line to standard error. */
  err(line: string): void;
}

/**
 * This process. It ends quietly once nothing reads its output any more (`| head`), and with an error where that can't be
 * written: what is shown only once would be lost.
 */
export function thisProcess(): CommandIo {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit();
    process.stderr.write(`error: the output cannot be written, so the command has stopped: ${error.message}\n`);
    process.exit(1);
  });
  // There is no other place to say it.
  process.stderr.on("error", () => undefined);
  return {
    env: process.env,
    cwd: process.cwd(),
    user: userName(),
    processes: thisProcessTable(),
    readStdin: () => text(process.stdin),
    out: (line) => {
      process.stdout.write(`${line}\n`);
    },
    async outPieces(pieces) {
      for await (const piece of pieces) if (!process.stdout.write(piece)) await once(process.stdout, "drain");
    },
    err: (line) => {
      process.stderr.write(`${line}\n`);
    },
  };
}

/** The machine's processes, seen from this one. */
export function thisProcessTable(): ProcessTable {
  return createProcessTable({ pid: process.pid, host: hostname(), exists: processExists });
}

/** A container may run under a uid without a name. */
function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return String(process.getuid?.() ?? "unknown");
  }
}

/** Whether a process with this pid exists; so does one that we may not signal (EPERM). */
function processExists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}

/** Commands print what matters themselves: the problems, and their own outcome. */
export const silent: Log = { debug: ignore, info: ignore, warn: ignore, error: ignore };

function ignore(): void {
  // Discards.
}
