import { mkdir } from "node:fs/promises";
import path from "node:path";
import { auditFolder, behaviourFileName, behaviourLine } from "./behaviour-files.ts";
import type { BehaviourEvent } from "./behaviour-scan.ts";
import { eventFacts } from "../envelope.ts";
import { type AppendFile, openAppendFile } from "../../lib/files/append-file.ts";
import { fileErrorCode } from "../../lib/files/file-ops.ts";
import { giveToFolderOwner } from "../../lib/files/atomic-file.ts";
import { type LogPage, type PageQuery, readLogPage } from "./log-pages.ts";
import type { Log } from "../../lib/log.ts";
import type { AdminChanged } from "../catalogue.ts";

/** Changes made by administrators: LOGS/audit/YYYY-MM-DD.jsonl, in the format of the behaviour logs. */
export interface AuditLog {
  /** Appends one line; it is on disk when this resolves. Rejects with Node's error. */
  append(event: AdminChanged): Promise<void>;
  /** Whether the file of a day can be opened for a line. Rejects with Node's error. */
  check(at: number): Promise<void>;
  /** Error code of the last append or check; null if it succeeded. For /healthz. */
  health(): { readonly lastError: string | null };
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
  const folder = auditFolder(logsDir);
  let lastError: string | null = null;

  async function openDay(at: number): Promise<AppendFile> {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const name = path.join(folder, behaviourFileName(dayOf(at), 0));
    const file = await openAppendFile(name);
    // A command may have been run by root: the server must be able to append to the file.
    await giveToFolderOwner(folder);
    await giveToFolderOwner(name);
    return file;
  }

  async function write(event: AdminChanged): Promise<void> {
    const file = await openDay(event.at);
    try {
      const line = behaviourLine(JSON.stringify(eventFacts(event)), new Date(event.at).toISOString());
      await file.append(Buffer.from(line));
      await file.sync();
    } finally {
      await file.close();
    }
  }

  async function noted(work: () => Promise<void>): Promise<void> {
    try {
      await work();
      lastError = null;
    } catch (error) {
      lastError = fileErrorCode(error) ?? "unknown";
      throw error;
    }
  }

  return {
    append: (event) => noted(() => write(event)),
    check: (at) => noted(async () => (await openDay(at)).close()),
    health: () => ({ lastError }),
  };
}

interface AuditQuery extends Omit<PageQuery, "type" | "matches"> {
  /** The user affected by a change. */
  readonly user?: string | undefined;
  /** The user who made it. */
  readonly by?: string | undefined;
  readonly action?: string | undefined;
}

export interface AuditReader {
  /**
   * Reads a page of administrators' changes.
   *
   * @throws AppError `invalid_request` for a cursor that isn't of this log, `storage_unavailable` if it can't be read
   */
  page(query: AuditQuery): Promise<LogPage>;
}

/** The log's owner in cursors. No user can have this name. */
const owner = "_audit";

/** Reads the files of the audit log. */
export function createAuditReader({ logsDir, log }: { readonly logsDir: string; readonly log?: Log }): AuditReader {
  return {
    page: ({ user, by, action, ...query }) => {
      const wanted = Object.entries({ user, by, action }).filter(([, value]) => value !== undefined);
      const matches = (event: BehaviourEvent): boolean => wanted.every(([key, value]) => event[key] === value);
      return readLogPage(auditFolder(logsDir), owner, { ...query, matches }, { ...(log && { log }) });
    },
  };
}
