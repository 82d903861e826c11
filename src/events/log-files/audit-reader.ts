import { auditFolder } from "./behaviour-files.ts";
import type { BehaviourEvent } from "./behaviour-scan.ts";
import { type LogPage, type PageQuery, readLogPage } from "./log-pages.ts";

interface AuditQuery extends Omit<PageQuery, "type" | "matches"> {
  /** The user whom a change concerned. */
  readonly user?: string | undefined;
  /** Who made it. */
  readonly by?: string | undefined;
  readonly action?: string | undefined;
}

export interface AuditReader {
  /**
   * Reads a page of what administrators changed.
   *
   * @throws AppError `invalid_request` for a cursor that is none of this log
   */
  page(query: AuditQuery): Promise<LogPage>;
}

/** The owner of the log in cursors. No user can have this name. */
const owner = "_audit";

/** Reads what the audit log writes. */
export function createAuditReader({ logsDir }: { readonly logsDir: string }): AuditReader {
  return {
    page: ({ user, by, action, ...query }) => {
      const wanted = Object.entries({ user, by, action }).filter(([, value]) => value !== undefined);
      const matches = (event: BehaviourEvent): boolean => wanted.every(([key, value]) => event[key] === value);
      return readLogPage(auditFolder(logsDir), owner, { ...query, matches });
    },
  };
}
