import type { Clock } from "../lib/clock.ts";
import type { FileOutcome } from "../lib/files/followed-file.ts";
import { scrubSecrets } from "../lib/secret-text.ts";
import type { ReloadReport } from "./reload.ts";

/** A key file that can't be used; the old keys stay in force. */
interface KeyFileProblem {
  /** Where the file is named: `providers.NAME.api_key_file`, `JWT_SECRETS_FILE`. */
  readonly path: string;
  readonly error: string;
  /** ms since the epoch. */
  readonly since: number;
}

/** What has become of the files with keys, for /healthz and as events. */
export interface KeyFileStatus {
  /** @param path where the file is named */
  update(path: string, outcome: FileOutcome): void;
  /** Forgets the problem of a file that is no longer used. */
  forget(path: string): void;
  problems(): readonly KeyFileProblem[];
}

/** Creates the status. It has one entry for each configured file at most. */
export function createKeyFileStatus(options: {
  readonly report: (report: ReloadReport) => void;
  readonly clock: Clock;
}): KeyFileStatus {
  const { report, clock } = options;
  const problems = new Map<string, KeyFileProblem>();
  return {
    update(path, { error, isChanged }) {
      if (error !== null) {
        const text = scrubSecrets(error);
        problems.set(path, { path, error: text, since: problems.get(path)?.since ?? clock.now() });
        report({ ok: false, by: "file", changes: [], restartNeeded: [], error: `${path}: ${text}` });
        return;
      }
      problems.delete(path);
      const changes = [{ path, before: "***", after: "***" }];
      if (isChanged) report({ ok: true, by: "file", changes, restartNeeded: [] });
    },
    forget(path) {
      problems.delete(path);
    },
    problems: () => [...problems.values()],
  };
}
