import { mkdir } from "node:fs/promises";
import path from "node:path";
import { openAppendFile } from "../lib/append-file.ts";
import { behaviourFileName } from "./behaviour-files.ts";
import { behaviourLine } from "./behaviour-line.ts";
import type { AdminChanged } from "./types.ts";

/** Who has changed what for others: LOGS/audit/YYYY-MM-DD.jsonl, in the form of the behaviour logs. */
export interface AuditLog {
  /** Appends one line; it is on disk when this resolves. Rejects with Node's error. */
  append(event: AdminChanged): Promise<void>;
}

/**
 * Such changes are few and each one matters: a line is written through at once, and the file closed again. So the
 * server and the command line can write to the same file.
 *
 * @param options `dayOf`: the local day of a time in ms, YYYY-MM-DD
 */
export function createAuditLog(options: {
  readonly logsDir: string;
  readonly dayOf: (at: number) => string;
}): AuditLog {
  const { logsDir, dayOf } = options;
  const folder = path.join(logsDir, "audit");
  return {
    async append(event) {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const file = await openAppendFile(path.join(folder, behaviourFileName(dayOf(event.at), 0)));
      try {
        await file.append(Buffer.from(behaviourLine(event, (ms) => new Date(ms).toISOString())));
        await file.sync();
      } finally {
        await file.close();
      }
    },
  };
}
