import path from "node:path";
import { AppError } from "../../errors.ts";
import { isBehaviourFolder } from "./behaviour-line.ts";
import { type LogPage, type PageQuery, readLogPage } from "./log-pages.ts";

export interface BehaviourQuery extends PageQuery {
  /** A user name, or `_unknown` for what was tried with names that no account has. */
  readonly user: string;
}

export interface BehaviourReader {
  /**
   * Reads a page of what a user did, from the files alone: lines that the log still holds in memory are not seen.
   *
   * @throws AppError `invalid_request` for a user that can have no log, or a cursor that is none of this user's
   */
  page(query: BehaviourQuery): Promise<LogPage>;
}

/** Reads the logs that the behaviour log writes. */
export function createBehaviourReader(options: {
  readonly logsDir: string;
  /** Bytes that are read for one page at the most, and a block more. */
  readonly maxScanBytes?: number;
}): BehaviourReader {
  return {
    async page({ user, ...query }) {
      if (!isBehaviourFolder(user)) throw new AppError("invalid_request", { param: "user" });
      return readLogPage(path.join(options.logsDir, "users", user), user, query, options.maxScanBytes);
    },
  };
}
