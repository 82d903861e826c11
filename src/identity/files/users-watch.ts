import { watch } from "node:fs";
import type { Log } from "../../lib/log.ts";

export interface UsersWatchOptions {
  readonly folder: string;
  readonly log: Log;
  /** Which file names matter. Quotas are written to this folder every few seconds, so other names must cost nothing. */
  readonly isOurs: (fileName: string) => boolean;
  /** Called with the files that may have changed. */
  readonly onFiles: (fileNames: ReadonlySet<string>) => void;
  /** Called when anything may have changed: periodically, and if the system doesn't say which file. */
  readonly onAny: () => void;
  /** ms to wait for further events: an editor causes several with one save. */
  readonly debounceMs: number;
  /** ms between two scans of the whole folder; some file systems (network, containers) report no changes. */
  readonly rescanMs: number;
}

/** Watches the folder of user files until closed. Doesn't keep the process alive. */
export function watchUsers(options: UsersWatchOptions): { close(): void } {
  const { folder, log } = options;
  const changed = new Set<string>();
  let debounce: NodeJS.Timeout | undefined;

  const report = () => {
    debounce = undefined;
    const files = new Set(changed);
    changed.clear();
    options.onFiles(files);
  };
  const rescan = setInterval(options.onAny, options.rescanMs).unref();

  const watcher = startWatching((fileName) => {
    if (fileName === null) options.onAny();
    if (fileName === null || !options.isOurs(fileName)) return;
    changed.add(fileName);
    debounce ??= setTimeout(report, options.debounceMs).unref();
  });

  function startWatching(listener: (fileName: string | null) => void) {
    const giveUp = (error: unknown) => {
      log.warn({ folder, err: error }, "cannot watch the users folder: changes are noticed only by periodic scans");
    };
    try {
      const started = watch(folder, { persistent: false }, (_event, fileName) => {
        listener(fileName);
      });
      return started.on("error", (error) => {
        giveUp(error);
        started.close();
      });
    } catch (error) {
      giveUp(error);
      return undefined;
    }
  }

  return {
    close: () => {
      watcher?.close();
      clearTimeout(debounce);
      clearInterval(rescan);
    },
  };
}
