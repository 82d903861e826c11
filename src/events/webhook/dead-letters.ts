import { rename } from "node:fs/promises";
import type { Log } from "../../lib/log.ts";
import { openAppendFile } from "../../lib/files/append-file.ts";

/** Alerts that no receiver took, in a file. */
export interface DeadLetters {
  /** Appends lines of JSON. Never rejects: what can't be written is counted. */
  add(lines: readonly string[]): Promise<void>;
  /** Lines that could not be written. */
  lost(): number;
}

/**
 * Appends to a file of at most half of `maxBytes`. When it is full it becomes FILE.1, in place of the previous one, so
 * that both take at most `maxBytes` and the latest half stays.
 *
 * @param options `maxBytes`: read at every use; 0 keeps nothing
 */
export function createDeadLetters(options: {
  readonly file: string;
  readonly maxBytes: () => number;
  readonly log: Log;
}): DeadLetters {
  const { file, maxBytes, log } = options;
  let lost = 0;
  let last = Promise.resolve();

  async function write(lines: readonly string[]): Promise<void> {
    const max = Math.floor(maxBytes() / 2);
    let handle = await openAppendFile(file);
    try {
      for (const line of lines) {
        const bytes = Buffer.from(`${line}\n`);
        if (bytes.length > max) {
          lost += 1;
          continue;
        }
        if (handle.size + bytes.length > max) {
          await handle.close();
          await rename(file, `${file}.1`);
          handle = await openAppendFile(file);
        }
        await handle.append(bytes);
      }
    } finally {
      await handle.close();
    }
  }

  return {
    add(lines) {
      if (maxBytes() === 0 || lines.length === 0) return last;
      last = last
        .then(() => write(lines))
        .catch((err: unknown) => {
          lost += lines.length;
          log.error({ err }, "undelivered alerts could not be written to their file");
        });
      return last;
    },
    lost: () => lost,
  };
}
