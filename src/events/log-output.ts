import { fileErrorCode } from "../lib/files/file-ops.ts";
import { createLineBatch, type LogDestination } from "./logger.ts";

/** The final destination of log lines. */
export interface LogOutput extends LogDestination {
  /** Writes the waiting lines, blocking for at most a second; the rest is dropped. For the end of the process. */
  flush(): void;
  /** Lines lost because the reader was too slow. */
  dropped(): number;
}

export interface LogOutputOptions {
  /**
   * Writes bytes without blocking, and returns how many were accepted. Throws EAGAIN if there is no room now; any other
   * error drops the waiting lines.
   */
  readonly write: (bytes: Uint8Array) => number;
  /** Bytes that may wait for a slow reader; lines beyond are dropped to bound memory. */
  readonly maxBytes?: number;
  /** Maximum duration of `flush`, in ms. */
  readonly flushMs?: number;
}

/** Lines are written together: a system call per line would cost as much as a tenth of a request. */
const batch = { length: 32 << 10, ms: 100 };
/** How long to wait before retrying a slow reader, in ms; increases while it accepts nothing. */
const firstRetryMs = 5;
const maxRetryMs = 200;
const lineFeed = 0x0a;

/**
 * Writes lines to a pipe, a socket, a terminal or a file, from this thread and without ever blocking on its reader. It
 * does not use the thread pool, as Node's asynchronous writes do: a write that hangs there blocks the end of the
 * process, even process.exit.
 */
export function createLogOutput({ write, maxBytes = 16 << 20, flushMs = 1000 }: LogOutputOptions): LogOutput {
  const waiting: Buffer[] = [];
  let waitingBytes = 0;
  let dropped = 0;
  /** Whether the last accepted byte is in the middle of a line; the lines after it may be dropped. */
  let isTorn = false;
  let retryMs = firstRetryMs;
  let timer: NodeJS.Timeout | undefined;
  const lines = createLineBatch(take, batch);

  function take(text: string): void {
    const bytes = Buffer.from(isTorn && waiting.length === 0 ? `\n${text}` : text);
    if (waitingBytes + bytes.length > maxBytes) {
      dropped += countLines(text);
      return;
    }
    waiting.push(bytes);
    waitingBytes += bytes.length;
    if (timer === undefined) writeSoon(writeWaiting());
  }

  function writeSoon(hasMoved: boolean): void {
    timer = undefined;
    if (waiting.length === 0) return;
    retryMs = hasMoved ? firstRetryMs : Math.min(retryMs * 2, maxRetryMs);
    timer = setTimeout(() => {
      writeSoon(writeWaiting());
    }, retryMs).unref();
  }

  /** Writes as much as is accepted now. Returns whether anything was. */
  function writeWaiting(): boolean {
    let hasMoved = false;
    for (let first = waiting[0]; first !== undefined; first = waiting[0]) {
      try {
        const written = write(first);
        hasMoved ||= written > 0;
        waitingBytes -= written;
        if (written === first.length) waiting.shift();
        else waiting[0] = first.subarray(written);
        if (written > 0) isTorn = first[written - 1] !== lineFeed;
      } catch (error) {
        if (fileErrorCode(error) !== "EAGAIN") dropWaiting();
        break;
      }
    }
    return hasMoved;
  }

  function dropWaiting(): void {
    for (const bytes of waiting.splice(0)) dropped += countLines(bytes.toString());
    waitingBytes = 0;
  }

  return {
    write: (line) => {
      lines.write(line);
    },
    flush() {
      lines.flush();
      const until = performance.now() + flushMs;
      for (;;) {
        writeWaiting();
        if (waiting.length === 0) return;
        if (performance.now() >= until) break;
        pauseBlocking(firstRetryMs);
      }
      dropWaiting();
    },
    dropped: () => dropped,
  };
}

function countLines(text: string): number {
  return text.split("\n").length - 1;
}

/** At the end of the process no other code may run any more, so there is no event loop to wait in. */
function pauseBlocking(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
