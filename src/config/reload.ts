import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import { scrubSecrets } from "../lib/secret-text.ts";
import { needsRestart, withBootOf } from "./boot.ts";
import { configDifference, type ConfigChange } from "./difference.ts";
import { ConfigError, problemsOfMerged } from "./load.ts";
import type { Config } from "./schema.ts";

/** The outcome of a reload. Secrets are masked. */
export interface ReloadResult {
  /** Whether the config on disk is in force now, apart from what needs a restart. */
  readonly ok: boolean;
  /** What came into force; empty if nothing has changed. */
  readonly changes: readonly ConfigChange[];
  /** Paths that differ from the running process and only come into force with a restart. */
  readonly restartNeeded: readonly string[];
  /** What is wrong with the config, one problem a line; then nothing has changed. */
  readonly error?: string;
}

/** The state of the config, for /healthz, /metrics and /admin/config. Times in ms since the epoch. */
export interface ReloadStatus {
  /** When the config in force was loaded. */
  readonly loadedAt: number;
  /** The problem of the config on disk; null if that one is in force. */
  readonly invalid: { readonly since: number; readonly error: string } | null;
  readonly restartNeeded: readonly string[];
  readonly reloads: { readonly success: number; readonly failure: number };
}

/** What happened, for the log, sinks and metrics. */
export interface ReloadReport extends ReloadResult {
  /** `file`, `SIGHUP`, or the name of an administrator. */
  readonly by: string;
}

export interface Reloader {
  /**
   * Reads the config and puts it in force as a whole, or changes nothing. Never rejects. Reloads run one after another.
   * @param by `file`, `SIGHUP`, or the name of an administrator
   */
  reload(by: string): Promise<ReloadResult>;
  status(): ReloadStatus;
}

export interface ReloaderOptions {
  /** The text of the config file. Throws ConfigError if it can't be read. */
  readonly read: () => string;
  /** Throws ConfigError. */
  readonly parse: (text: string) => Config;
  /** The config that the process was started with, and its text. */
  readonly started: { readonly config: Config; readonly text: string };
  /**
   * Checks a config that is valid by its schema, and makes everything that it needs. Throws ConfigError.
   * @returns puts it in force; must not throw
   */
  readonly prepare: (config: Config) => Promise<() => void>;
  /** Called for each reload that changed something or was refused. */
  readonly report: (report: ReloadReport) => void;
  /** Folders whose paths are left out of error messages. */
  readonly folder: string;
  readonly clock: Clock;
  readonly log: Log;
}

/** How long a change that the watcher has noticed may be what somebody then asks for, in ms. */
const noticedMs = 5000;
/** Longest error that is reported, in characters. */
const maxErrorLength = 4000;

/** Reloads the config while the process runs. */
export function createReloader(options: ReloaderOptions): Reloader {
  const { read, parse, started, prepare, report, clock, log } = options;
  let inForce = started.config;
  let loadedAt = clock.now();
  let invalid: ReloadStatus["invalid"] = null;
  let restartNeeded: readonly string[] = [];
  const reloads = { success: 0, failure: 0 };
  /** The text that was last put in force or refused. */
  let lastText: string | null = started.text;
  /** What the watcher put in force, and when, in monotonic ms; null once somebody has been told. */
  let noticed: { readonly result: ReloadResult; readonly at: number } | null = null;
  let queue: Promise<unknown> = Promise.resolve();

  async function run(by: string): Promise<ReloadResult> {
    let text: string | null = null;
    try {
      text = read();
      // The watcher sees what a signal or an administrator has had reloaded already.
      if (by === "file" && text === lastText) return { ok: invalid === null, changes: [], restartNeeded };
      const result = await apply(parse(text), by);
      return by === "file" ? result : withNoticed(result, text);
    } catch (error) {
      return refuse(error, by);
    } finally {
      lastText = text;
    }
  }

  /**
   * Somebody changes the file and then asks for a reload: the watcher may have been faster, and its result is the answer.
   */
  function withNoticed(result: ReloadResult, text: string): ReloadResult {
    const before = noticed;
    noticed = null;
    const isRecent = before !== null && clock.monotonic() - before.at < noticedMs;
    return isRecent && text === lastText && result.changes.length === 0 ? before.result : result;
  }

  async function apply(next: Config, by: string): Promise<ReloadResult> {
    const all = configDifference(inForce, next);
    const restart = all.map(({ path }) => path).filter(needsRestart);
    const changes = all.filter(({ path }) => !needsRestart(path));
    const merged = withBootOf(next, inForce);
    const problems = restart.length === 0 ? [] : problemsOfMerged(merged, restart);
    if (problems.length > 0) throw new ConfigError(problems.join("\n"));
    if (changes.length > 0) {
      const putInForce = await prepare(merged);
      putInForce();
      inForce = merged;
    }
    const isNews = changes.length > 0 || invalid !== null || restart.join() !== restartNeeded.join();
    loadedAt = clock.now();
    invalid = null;
    restartNeeded = restart;
    reloads.success++;
    const result: ReloadResult = { ok: true, changes, restartNeeded };
    if (isNews) tell({ ...result, by });
    noticed = by === "file" ? { result, at: clock.monotonic() } : noticed;
    return result;
  }

  /** A report that throws must not undo a reload, nor end the queue of those to come. */
  function tell(what: ReloadReport): void {
    try {
      report(what);
    } catch (error) {
      log.error({ err: error }, "a reload could not be reported");
    }
  }

  function refuse(error: unknown, by: string): ReloadResult {
    if (!(error instanceof ConfigError)) log.error({ err: error }, "the config could not be reloaded");
    const message = error instanceof Error ? error.message : String(error);
    const text = scrubSecrets(message.replaceAll(`${options.folder}/`, "")).slice(0, maxErrorLength);
    invalid = { since: invalid?.since ?? clock.now(), error: text };
    reloads.failure++;
    const result: ReloadResult = { ok: false, changes: [], restartNeeded, error: text };
    tell({ ...result, by });
    return result;
  }

  return {
    reload(by) {
      const result = queue.then(() => run(by));
      queue = result;
      return result;
    },
    status: () => ({ loadedAt, invalid, restartNeeded, reloads: { ...reloads } }),
  };
}
